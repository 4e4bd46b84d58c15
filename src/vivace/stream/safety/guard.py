"""The guard between the source of one choice and its stream: holds back, asks the checks, takes back what may not be.

Words and patterns are decided by the screen; a check sees what the screen lets through, in windows. Under the action
`regenerate` what is not allowed was never shown: the answer goes back to the last token before it, that token is not
drawn there again, and after MAX_TRIES in one place, or MAX_ATTEMPTS in all, the answer ends there.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from vivace.stream.flush import sentence_ends
from vivace.stream.safety.checks import Check, Passage
from vivace.stream.safety.screen import SafetyRules, ScreenStage
from vivace.stream.source import ChoiceSource
from vivace.stream.work import Notice
from vivace.types.answer import AnswerChunk, Usage

MAX_TRIES = 4
MAX_ATTEMPTS = 32
MAX_WINDOW_TOKENS = 64
CONTEXT_CHARS = 8
"""What may stand before a match and tell that it is one."""


@dataclass(frozen=True, slots=True)
class GuardPlan:
    """What guards have in common.

    Args:
        rules: words and patterns, with the action for whatever is not allowed.
        checks: in the order they are asked.
        num_prompt: tokens of the request's prompt.
    """

    rules: SafetyRules
    checks: Sequence[Check] = ()
    num_prompt: int = 0


class Guard:
    """Guards one choice.

    Args:
        source: its chunks.
        plan: what is looked for.
        num_passed: characters that were shown before a restart, and are not judged again where judging is all that
            happens to them.
    """

    def __init__(self, source: ChoiceSource, plan: GuardPlan, num_passed: int = 0) -> None:
        self._source = source
        self._plan = plan
        self._action = plan.rules.action
        self._num_passed = num_passed if self._action in ("stop", "regenerate") else 0
        self._by_token = all(check.config.every == "token" for check in plan.checks)
        self._shown, self._shown_ids = "", list[int]()
        self._window: list[AnswerChunk] = []
        self._text = ""
        self._waiting: list[AnswerChunk] = []
        self._waiting_ends: list[int] = []  # where each ends in the text; -1 where the answer may not be cut
        self._banned: set[int] = set()
        self._has_ended = self._is_over = False
        hides = bool(plan.rules and plan.checks) and self._action in ("mask", "replace")
        self._rescreen = ScreenStage(plan.rules) if hides else None  # a passage that is hidden has new neighbours
        self._renew_screen("")

    async def chunks(self) -> AsyncGenerator[AnswerChunk | Notice, None]:
        """What may be shown, and a notice for each time that something was taken back."""
        async with aclosing(self._source.chunks()) as chunks:
            async for chunk in chunks:
                self._screened(chunk)
                async with aclosing(self._judged()) as allowed:
                    async for told in allowed:
                        yield told
                if self._is_refused and not self._has_ended:
                    for told in self._take_back(self._waiting):
                        yield told
                if self._has_ended or self._is_over:
                    return

    # Words and patterns -----------------------------------------------------------------------------------------------

    @property
    def _is_refused(self) -> bool:
        """Whether what waits is not allowed and has to be drawn anew."""
        return self._action == "regenerate" and self._screen.has_stopped

    def _renew_screen(self, text: str) -> None:
        if self._action == "regenerate":
            self._screen = self._plan.rules.screen()
            self._screen.feed(text)
            self._text = text
            self._waiting_ends.clear()
        else:
            self._stage = ScreenStage(self._plan.rules)

    def _screened(self, chunk: AnswerChunk) -> None:
        """Move what passes the screen into the window, under `regenerate` whole tokens only."""
        if self._action != "regenerate":
            for passed in self._stage.feed(chunk) if self._plan.rules else (chunk,):
                self._is_over = passed.finish_reason is not None
                usage = passed.usage or (self._usage(self._source.token_ids) if self._is_over else None)
                self._window.append(replace(passed, usage=usage))
            return
        self._text += chunk.text
        self._screen.feed(chunk.text)
        end = len(self._text)
        if chunk.finish_reason is not None:
            self._screen.finish()
        elif not self._may_end_here():
            end = -1
        self._waiting.append(chunk)
        self._waiting_ends.append(end)
        begin, decided = 0, self._screen.num_decided
        for count, end in enumerate(self._waiting_ends, 1):
            if 0 <= end <= decided:
                self._window.append(_joined(self._waiting[begin:count]))
                begin = count
        del self._waiting[:begin], self._waiting_ends[:begin]

    def _may_end_here(self) -> bool:
        """Whether the text so far is allowed whatever becomes of the tokens after it, which may be taken back.

        A word that is not allowed is one only where it ends: what shows that it does not end here may be taken back.
        """
        if not self._screen.num_held:
            return True
        open_text = self._text[max(0, self._screen.num_decided - CONTEXT_CHARS) :]
        return not self._plan.rules.holds_match(open_text)

    # Checks -----------------------------------------------------------------------------------------------------------

    async def _judged(self) -> AsyncGenerator[AnswerChunk | Notice, None]:
        """What of the window may be shown now."""
        while count := self._window_length():
            window, self._window = self._window[:count], self._window[count:]
            if await self._allows(window):
                for chunk in window:
                    yield self._show(chunk)
                continue
            if self._action == "regenerate":
                self._window.clear()
                for told in self._take_back(window):
                    yield told
                return
            if self._action == "stop":
                for told in self._end():
                    yield told
                return
            for chunk in self._hidden(window):
                yield self._show(chunk)

    def _window_length(self) -> int:
        """Chunks that are judged next; 0 while more has to come."""
        if not self._window or not self._plan.checks:
            return len(self._window)
        if self._by_token or any(chunk.finish_reason for chunk in self._window):
            return len(self._window)
        text = "".join(chunk.text for chunk in self._window)
        if len(self._window) >= MAX_WINDOW_TOKENS:
            return len(self._window)
        end, length = max(sentence_ends(text), default=0), 0
        for count, chunk in enumerate(self._window, 1):
            length += len(chunk.text)
            if 0 < end <= length:
                return count
        return 0

    async def _allows(self, window: Sequence[AnswerChunk]) -> bool:
        text = self._shown + "".join(chunk.text for chunk in window)
        if len(text) <= max(self._num_passed, len(self._shown)):
            return True
        ids = (*self._shown_ids, *(token_id for chunk in window for token_id in chunk.token_ids))
        passage = Passage(text, len(self._shown), ids)
        for check in self._plan.checks:
            if not await check.allows(passage):
                return False
        return True

    def _hidden(self, window: Sequence[AnswerChunk]) -> list[AnswerChunk]:
        """A window with its text masked or replaced."""
        text = "".join(chunk.text for chunk in window)
        shown = self._plan.rules.in_place_of(text)
        return [replace(chunk, text="" if index else shown) for index, chunk in enumerate(window)]

    # What follows -----------------------------------------------------------------------------------------------------

    def _show(self, chunk: AnswerChunk) -> AnswerChunk:
        self._shown += chunk.text
        self._shown_ids += chunk.token_ids
        if chunk.token_ids:
            self._banned.clear()
        return chunk if self._rescreen is None else next(self._rescreen.feed(chunk))

    def _take_back(self, refused: Sequence[AnswerChunk]) -> list[AnswerChunk | Notice]:
        """Draw on from the last token that may stay, and not the one that came next; or end, after too many tries."""
        kept = [*self._shown_ids, *(token_id for chunk in self._window for token_id in chunk.token_ids)]
        first = next((token_id for chunk in refused for token_id in chunk.token_ids), None)
        if first is not None:
            self._banned.add(first)
        if first is None or len(self._banned) > MAX_TRIES or self._source.attempt >= MAX_ATTEMPTS:
            return self._end()
        self._source.take_back(len(kept), sorted(self._banned))
        text = self._shown + "".join(chunk.text for chunk in self._window)
        self._waiting.clear()
        self._renew_screen(text)
        told = {"choice": self._source.choice, "offset": len(self._shown), "attempt": self._source.attempt}
        return [Notice("rollback", told)]

    def _end(self) -> list[AnswerChunk | Notice]:
        """The answer ends before what is not allowed."""
        self._has_ended = True
        usage = self._usage(self._shown_ids)
        return [AnswerChunk(self._source.choice, "", finish_reason="content_filter", usage=usage)]

    def _usage(self, token_ids: Sequence[int]) -> Usage:
        return Usage(self._plan.num_prompt, len(token_ids))


def _joined(chunks: Sequence[AnswerChunk]) -> AnswerChunk:
    """Tokens that may be shown together, and not each after the other."""
    text = "".join(chunk.text for chunk in chunks)
    return replace(chunks[-1], text=text, token_ids=tuple(token_id for chunk in chunks for token_id in chunk.token_ids))
