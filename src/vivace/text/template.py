"""Chat templates: a conversation as the text and the token ids that a model was trained on.

Templates are jinja2 as in Hugging Face's `chat_template`, run in the sandbox of `sandbox.py`. An engine should call
`ChatTemplate.encode_chat`: it gives the ids of the rendered text, except that nothing a message contains can become a
control token (`guard.py`).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Self

from jinja2 import TemplateError, TemplateSyntaxError
from jinja2.exceptions import SecurityError

from vivace.text.guard import ContentGuard, choose_breaker
from vivace.text.sandbox import LARGEST_INPUT, TemplateEnvironment, measure
from vivace.text.tokenizer import Tokenizer, refuse_surrogates
from vivace.types.errors import RequestError, TokenizerError
from vivace.types.request import ChatMessage

# For models that come without a template: base models, which go on with a dialogue written as plain text. They have no
# end-of-turn token, so an answer should also end at the stop strings, where the model begins the user's next turn.
PLAIN_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ message.role | capitalize }}: {{ message.content | trim }}\n"
    "{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
PLAIN_STOP_STRINGS = ("\nUser:", "\nSystem:", "\nAssistant:")

_LONGEST_SOURCE = 1 << 20
_ROLE = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")


class ChatTemplate:
    """Renders conversations of one model. Immutable; safe to share between threads.

    Args:
        source: the jinja2 template.
        tokenizer: the model's tokenizer; its named tokens (`bos_token`, `eos_token` ...) are variables of the template.
        stop_strings: texts at which an answer should end besides the tokenizer's `eos_ids`.
        now: clock behind the template function `strftime_now`.

    Raises:
        TokenizerError: the template is not valid jinja2, or longer than a mebibyte.
    """

    def __init__(
        self,
        source: str,
        tokenizer: Tokenizer,
        *,
        stop_strings: Sequence[str] = (),
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        self.source = source
        self.stop_strings = tuple(stop_strings)
        self._tokenizer = tokenizer
        self._guard = ContentGuard(tokenizer.control_matcher, tokenizer.control_texts)
        self._environment = TemplateEnvironment(now)
        if len(source) > _LONGEST_SOURCE:
            raise self._broken("it is longer than a mebibyte")
        try:
            self._compiled = self._environment.compile_template(source)
        except TemplateSyntaxError as error:
            raise self._broken(f"line {error.lineno}: {error.message}") from None
        except (TemplateError, RecursionError, SyntaxError, MemoryError) as error:
            raise self._broken(str(error) or type(error).__name__) from None

    def render(
        self,
        messages: Sequence[ChatMessage],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **extra: Any,
    ) -> str:
        """The conversation as text, control tokens spelled out. To be shown; to get ids use `encode_chat`.

        Args:
            messages: the turns, oldest first.
            add_generation_prompt: end with the opening of the assistant's next turn.
            tools: JSON schemas of tools, for templates that take them.
            extra: further variables of the template.

        Raises:
            RequestError: no messages, a malformed role, a lone surrogate, or the template refuses the conversation.
            TokenizerError: the template fails, or runs for too long.
        """
        return self._render(_Conversation.checked(messages, tools, extra, add_generation_prompt))

    def encode_chat(
        self,
        messages: Sequence[ChatMessage],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **extra: Any,
    ) -> list[int]:
        """The conversation as ids: those of `render`, but control tokens only where the template wrote them.

        The tokenizer's begin-of-sequence token comes first if it asks for one, whether the template writes it or not.

        Args:
            messages: the turns, oldest first.
            add_generation_prompt: end with the opening of the assistant's next turn.
            tools: JSON schemas of tools, for templates that take them.
            extra: further variables of the template.

        Raises:
            RequestError: no messages, a malformed role, a lone surrogate, or the template refuses the conversation.
            TokenizerError: the template fails, or runs for too long.
        """
        asked = _Conversation.checked(messages, tools, extra, add_generation_prompt)
        given = asked.untrusted()
        breaker = choose_breaker(given, self.source)
        fragments = self._fragments(asked.with_untrusted(self._guard.break_tokens(given, breaker)))
        if self._guard.is_suspicious(given):
            sound = self._fragments(asked.with_untrusted(self._guard.break_everything(given, breaker)))
            if _control_ids(sound) != _control_ids(fragments):
                fragments = sound
        ids = self._tokenizer.encode_fragments(
            fragment.replace(breaker, "") if isinstance(fragment, str) else fragment for fragment in fragments
        )
        bos = self._tokenizer.bos_id
        if self._tokenizer.adds_bos and bos is not None and ids[:1] != [bos]:
            ids.insert(0, bos)
        return ids

    def _fragments(self, conversation: "_Conversation") -> list[str | int]:
        return self._tokenizer.split_control(self._render(conversation))

    def _render(self, conversation: "_Conversation") -> str:
        variables = {
            **conversation.extra,
            "bos_token": "",
            "eos_token": "",
            **self._tokenizer.named_tokens,
            "messages": conversation.turns(),
            "tools": conversation.tools,
            "add_generation_prompt": conversation.add_generation_prompt,
        }
        try:
            return self._environment.run(self._compiled, variables)
        except RequestError:
            raise
        except SecurityError as error:
            raise self._broken(f"it does what a template may not: {error}") from None
        except Exception as error:  # a template can raise anything that Python can
            raise self._broken(f"it fails: {type(error).__name__}: {error}") from None

    def _broken(self, why: str) -> TokenizerError:
        return TokenizerError(
            f"The model's chat template is broken: {why[:500]}.", "Use another model, or send a raw prompt."
        )


@dataclass(frozen=True, slots=True)
class _Conversation:
    """What a template is given for one request."""

    roles: tuple[str, ...]
    contents: list[str]
    tools: Any
    extra: dict[str, Any]
    add_generation_prompt: bool

    @classmethod
    def checked(
        cls,
        messages: Sequence[ChatMessage],
        tools: Sequence[Mapping[str, Any]] | None,
        extra: dict[str, Any],
        add_generation_prompt: bool,
    ) -> Self:
        """Check what came with a request; raises RequestError."""
        check_messages(messages)
        try:
            measure((tools, extra), LARGEST_INPUT)
        except SecurityError:
            raise RequestError(
                "The tools, or the variables of the chat template, are nested too deeply.",
                "Send simpler ones.",
                param="tools",
            ) from None
        roles = tuple(message.role for message in messages)
        return cls(roles, [message.content for message in messages], tools, extra, add_generation_prompt)

    def turns(self) -> list[dict[str, str]]:
        """The messages as templates read them."""
        return [{"role": role, "content": content} for role, content in zip(self.roles, self.contents, strict=True)]

    def untrusted(self) -> list[Any]:
        """Every value whose text is not ours."""
        return [self.contents, self.tools, list(self.extra.values())]

    def with_untrusted(self, values: list[Any]) -> Self:
        """The same with other values in place of `untrusted`."""
        contents, tools, extra = values
        return replace(self, contents=contents, tools=tools, extra=dict(zip(self.extra, extra, strict=True)))


def check_messages(messages: Sequence[ChatMessage]) -> None:
    """Check what every template relies on.

    Raises:
        RequestError: no messages, a role that is not a plain word, or a lone surrogate.
    """
    if not messages:
        raise RequestError("The conversation has no messages.", "Send at least one.", param="messages")
    for number, message in enumerate(messages):
        if not _ROLE.fullmatch(message.role):
            raise RequestError(
                f"Message {number} has the role {message.role[:80]!r}.",
                'Use "system", "user", "assistant" or "tool".',
                param="messages",
            )
        try:
            refuse_surrogates(message.content)
        except TokenizerError as error:
            raise RequestError(f"Message {number}: {error.what}", error.mend, param="messages") from None


def _control_ids(fragments: list[str | int]) -> list[int]:
    return [fragment for fragment in fragments if isinstance(fragment, int)]
