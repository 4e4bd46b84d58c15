"""The safety filter at the server's doors: what comes in, what goes out whole, what goes out in a stream."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace

from vivace.engine.answers import assemble
from vivace.engine.service import ModelService, new_timeline
from vivace.server.answering import complete_all
from vivace.server.errors import HttpError
from vivace.server.reply import with_seed
from vivace.stream.journal import Progress
from vivace.stream.safety.checks import Ask, Check, Passage
from vivace.stream.safety.guard import Guard, GuardPlan
from vivace.stream.safety.screen import SafetyConfig, SafetyRules, Screen, ScreenStage
from vivace.stream.source import ChoiceSources, Generator
from vivace.stream.stages import Stage
from vivace.stream.work import Notice
from vivace.types.answer import Answer, AnswerChunk, Choice
from vivace.types.errors import RequestError
from vivace.types.request import GenerationRequest


class Safety:
    """The rules of one server, or none.

    Args:
        config: what is looked for.
        ask: the served model, for checks that ask it.

    Raises:
        ConfigError: rules that can never work.
    """

    def __init__(self, config: SafetyConfig | None = None, ask: Ask | None = None) -> None:
        config = config or SafetyConfig()
        self._rules = SafetyRules(config)
        self._checks = [Check(check, ask) for check in config.checks]
        self._check_input = config.check_input

    def __bool__(self) -> bool:
        return bool(self._rules or self._checks)

    async def check(self, texts: Sequence[str], logprobs: int | None = None) -> None:
        """Refuse a request whose own text is not allowed, or that asks for what a filter cannot pass.

        Raises:
            HttpError: 400 `content_filter`.
            RequestError: log probabilities spell out tokens that the filter holds back.
        """
        if not self:
            return
        if logprobs is not None:
            raise RequestError(
                "This server filters what it says, and log probabilities would tell it nevertheless.",
                "Leave out logprobs.",
                param="logprobs",
            )
        if self._check_input and not await self._allows(texts):
            raise HttpError(
                400, "content_filter", "The request holds text that this server does not take.", "Change the text."
            )

    def screen(self) -> Screen:
        """The filter of one text."""
        return self._rules.screen()

    def stages(self) -> tuple[Stage, ...]:
        """The filter as the stage of one request's stream, where no guard stands before it."""
        return (ScreenStage(self._rules),) if self._rules and not self.needs_guard else ()

    @property
    def may_end(self) -> Callable[[str], bool] | None:
        """Whether what a reader has may end like this, as words and patterns say; None without any."""
        return self._ends_well if self._rules else None

    def _ends_well(self, text: str) -> bool:
        return not self._rules.holds_match(text)

    @property
    def needs_guard(self) -> bool:
        """Whether something has to be asked, or drawn anew, before text may be shown."""
        return bool(self._checks) or (bool(self._rules) and self._rules.action == "regenerate")

    def chunks(
        self, request: GenerationRequest, sources: ChoiceSources, progress: Mapping[int, Progress]
    ) -> AsyncGenerator[AnswerChunk | Notice, None]:
        """The chunks of a request as they may leave.

        Args:
            request: whose they are.
            sources: of its choices.
            progress: what was shown of them before a restart.
        """
        if not self.needs_guard:
            return sources.joined([source.chunks() for source in sources.sources])
        plan = GuardPlan(self._rules, self._checks, len(request.prompt_ids))
        guards = [
            Guard(source, plan, progress[source.choice].num_chars if source.choice in progress else 0)
            for source in sources.sources
        ]
        return sources.joined([guard.chunks() for guard in guards])

    async def complete_all(self, service: ModelService, requests: Sequence[GenerationRequest]) -> list[Answer]:
        """Whole answers as they may leave, in the order of the requests.

        Raises:
            VivaceError: what the first failing request raised.
        """
        if not self.needs_guard:
            return [self._screened(answer) for answer in await complete_all(service, requests)]
        return [await self._guarded(service, with_seed(request)) for request in requests]

    async def _guarded(self, service: ModelService, request: GenerationRequest) -> Answer:
        sources, timeline = ChoiceSources(request, Generator(service.stream, service.cancel)), new_timeline()
        async with aclosing(self.chunks(request, sources, {})) as items:
            chunks = [item async for item in items if isinstance(item, AnswerChunk)]
        answer = assemble(chunks, request.n, timeline)
        return replace(answer, choices=tuple(replace(choice, logprobs=()) for choice in answer.choices))

    async def _allows(self, texts: Sequence[str]) -> bool:
        for text in texts:
            if self._rules.holds_match(text):
                return False
            for check in self._checks:
                if not await check.allows(Passage(text)):
                    return False
        return True

    def _screened(self, answer: Answer) -> Answer:
        if not self._rules:
            return answer
        return replace(answer, choices=tuple(map(self._screened_choice, answer.choices)))

    def _screened_choice(self, choice: Choice) -> Choice:
        text, has_stopped = self._rules.screened(choice.text)
        reason = "content_filter" if has_stopped else choice.finish_reason
        return replace(choice, text=text, finish_reason=reason, logprobs=())
