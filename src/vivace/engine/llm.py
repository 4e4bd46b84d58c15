"""The Python API: `from vivace import LLM`. A thin face of ModelService that takes plain strings and keywords."""

import difflib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import fields
from types import TracebackType
from typing import Any, Self, overload

from vivace.engine.build import EngineConfig, build_service
from vivace.engine.conversations import SavedConversation
from vivace.engine.service import ModelService
from vivace.types.answer import Answer, AnswerChunk
from vivace.types.errors import ConfigError, RequestError
from vivace.types.request import ChatMessage, GenerationRequest

_OWNER = ""  # of sessions saved through this API: whoever may read the folder
Conversation = str | Sequence[ChatMessage | Mapping[str, str]]


class LLM:
    """A chat model in this process.

    Sampling keywords of every method: temperature, top_k, top_p, min_p, repetition_penalty, presence_penalty,
    frequency_penalty, logit_bias, seed, max_tokens, stop, stop_token_ids, ignore_eos, n, logprobs, the fields of
    `types.request.ServiceLevel`, kv_policy, structured_outputs (engine/structure.py), and for chats long_chat.

    Args:
        model: a catalogue name, a path of a model file or folder, or a hub id; downloaded first if it has to be.
        settings: fields of `engine.build.EngineConfig`, such as context_length or num_threads.

    Raises:
        ConfigError: an unknown or impossible setting.
        VivaceError: the model cannot be found or read.

    Example:
        >>> with LLM() as llm:
        ...     print(llm.chat("Why is the sky blue?", max_tokens=60))
    """

    def __init__(self, model: str | None = None, **settings: Any) -> None:
        known = [field.name for field in fields(EngineConfig)]
        for name in settings:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                mend = f"Did you mean {near[0]!r}?" if near else f"Known are: {', '.join(known)}."
                raise ConfigError(f"There is no setting {name!r}.", mend)
        self.service: ModelService = build_service(model, EngineConfig(**settings))

    def chat(self, messages: Conversation, **sampling: Any) -> Answer:
        """The assistant's next turn.

        Args:
            messages: what the user says, or the whole conversation as ChatMessages or role/content mappings.
            sampling: see the class.

        Raises:
            RequestError: a malformed message, an unknown keyword, a value out of range.
            ContextLengthError: conversation and answer do not fit into the context.
        """
        return self.service.complete(self._chat_request(messages, sampling))

    @overload
    def generate(self, prompt: str, **sampling: Any) -> Answer: ...
    @overload
    def generate(self, prompt: Sequence[str], **sampling: Any) -> list[Answer]: ...
    def generate(self, prompt: str | Sequence[str], **sampling: Any) -> Answer | list[Answer]:
        """Continue a text without chat template; a list of texts is continued together and gives a list.

        Raises:
            RequestError: an unknown keyword or a value out of range.
            ContextLengthError: prompt and answer do not fit into the context.
        """
        if isinstance(prompt, str) or not isinstance(prompt, Sequence):
            return self.service.complete(self._raw_request(prompt, sampling))
        return self.service.complete_all([self._raw_request(text, sampling) for text in prompt])

    def stream_chat(self, messages: Conversation, **sampling: Any) -> Iterator[AnswerChunk]:
        """As `chat`, piece by piece. Closing the iterator ends the answer."""
        return self.service.iterate(self._chat_request(messages, sampling))

    def stream(self, prompt: str, **sampling: Any) -> Iterator[AnswerChunk]:
        """As `generate` of one text, piece by piece. Closing the iterator ends the answer."""
        return self.service.iterate(self._raw_request(prompt, sampling))

    async def achat(self, messages: Conversation, **sampling: Any) -> Answer:
        """As `chat`, awaited; a cancelled task ends the answer."""
        return await self.service.acomplete(self._chat_request(messages, sampling))

    async def agenerate(self, prompt: str, **sampling: Any) -> Answer:
        """As `generate` of one text, awaited; a cancelled task ends the answer."""
        return await self.service.acomplete(self._raw_request(prompt, sampling))

    async def astream_chat(self, messages: Conversation, **sampling: Any) -> AsyncIterator[AnswerChunk]:
        """As `stream_chat`, for `async for`."""
        async with aclosing(self.service.stream(self._chat_request(messages, sampling))) as chunks:
            async for chunk in chunks:
                yield chunk

    async def astream(self, prompt: str, **sampling: Any) -> AsyncIterator[AnswerChunk]:
        """As `stream`, for `async for`."""
        async with aclosing(self.service.stream(self._raw_request(prompt, sampling))) as chunks:
            async for chunk in chunks:
                yield chunk

    def save_session(
        self, messages: Conversation, session_id: str | None = None, **parameters: Any
    ) -> SavedConversation:
        """Keep a conversation and its keys and values in the folder of `tiers`, also for another process.

        Args:
            messages: as for `chat`, the last answer included.
            session_id: of a saved conversation that this one continues; None: a new one.
            parameters: tenant and long_chat, where `chat` is given them.

        Raises:
            VivaceError: there is no folder, no such session or no room.
        """
        return self.service.conversations.save(_OWNER, as_messages(messages), parameters, session_id)

    def restore_session(self, session_id: str) -> SavedConversation:
        """Have a saved conversation back, ready to go on without reading its history again.

        Raises:
            VivaceError: there is no folder, or no such session.
        """
        return self.service.conversations.restore(_OWNER, session_id)

    def delete_session(self, session_id: str) -> None:
        """Forget a saved conversation.

        Raises:
            VivaceError: there is no folder, or no such session.
        """
        self.service.conversations.delete(_OWNER, session_id)

    def expect(self, messages: Conversation, **parameters: Any) -> None:
        """Somebody is about to go on with a conversation: bring its keys and values back; returns at once.

        Raises:
            RequestError: a malformed message or parameter.
        """
        self.service.conversations.expect(as_messages(messages), parameters)

    def close(self) -> None:
        """End everything and free the model; may be called twice."""
        self.service.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _chat_request(self, messages: Conversation, sampling: Mapping[str, object]) -> GenerationRequest:
        return self.service.admit_chat(as_messages(messages), sampling)

    def _raw_request(self, prompt: str, sampling: Mapping[str, object]) -> GenerationRequest:
        if not isinstance(prompt, str):
            raise RequestError(f"The prompt is a {type(prompt).__name__}.", "Give a string.", param="prompt")
        return self.service.admit(self.service.encode(prompt), sampling)


def as_messages(conversation: Conversation) -> list[ChatMessage]:
    """A conversation as ChatMessages; a string is one message of the user.

    Raises:
        RequestError: a message is neither a ChatMessage nor a mapping with string `role` and `content`.
    """
    if isinstance(conversation, str):
        return [ChatMessage("user", conversation)]
    if not isinstance(conversation, Sequence):
        raise _malformed(conversation)
    return [_as_message(message) for message in conversation]


def _as_message(message: object) -> ChatMessage:
    if isinstance(message, ChatMessage):
        return message
    if isinstance(message, Mapping) and message.keys() == {"role", "content"}:
        role, content = message["role"], message["content"]
        if isinstance(role, str) and isinstance(content, str):
            return ChatMessage(role, content)
    raise _malformed(message)


def _malformed(message: object) -> RequestError:
    mend = 'Give {"role": "user", "content": "..."} or a ChatMessage.'
    return RequestError(f"A message is {str(message)[:60]!r}.", mend, param="messages")
