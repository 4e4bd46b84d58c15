"""The safety filter at the server's doors: what comes in, what goes out whole, what goes out in a stream."""

from collections.abc import Sequence
from dataclasses import replace

from vivace.server.errors import HttpError
from vivace.stream.safety.screen import SafetyConfig, SafetyRules, Screen, ScreenStage
from vivace.stream.stages import Stage
from vivace.types.answer import Answer, Choice
from vivace.types.errors import RequestError


class Safety:
    """The rules of one server, or none.

    Raises:
        ConfigError: rules that can never work.
    """

    def __init__(self, config: SafetyConfig | None = None) -> None:
        self._rules = SafetyRules(config or SafetyConfig())

    def check(self, texts: Sequence[str], logprobs: int | None) -> None:
        """Refuse a request whose own text is not allowed, or that asks for what a filter cannot pass.

        Raises:
            HttpError: 400 `content_filter`.
            RequestError: log probabilities spell out tokens that the filter holds back.
        """
        if not self._rules:
            return
        if logprobs is not None:
            raise RequestError(
                "This server filters what it says, and log probabilities would tell it nevertheless.",
                "Leave out logprobs.",
                param="logprobs",
            )
        if self._rules.check_input and any(map(self._rules.holds_match, texts)):
            raise HttpError(
                400, "content_filter", "The request holds text that this server does not take.", "Change the text."
            )

    def screen(self) -> Screen:
        """The filter of one text."""
        return self._rules.screen()

    def stages(self) -> tuple[Stage, ...]:
        """The filter as the stage of one request's stream."""
        return (ScreenStage(self._rules),) if self._rules else ()

    def screened(self, answer: Answer) -> Answer:
        """A whole answer as it may leave."""
        if not self._rules:
            return answer
        return replace(answer, choices=tuple(map(self._screened_choice, answer.choices)))

    def _screened_choice(self, choice: Choice) -> Choice:
        text, has_stopped = self._rules.screened(choice.text)
        reason = "content_filter" if has_stopped else choice.finish_reason
        return replace(choice, text=text, finish_reason=reason, logprobs=())
