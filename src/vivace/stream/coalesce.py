"""Bursts of tokens in one send: what comes within 10 ms of the last send waits for the rest of them, or for 5 tokens.

A token that comes later than that, and the first one, is never delayed: only bursts are gathered. At 30 tokens a second
nothing waits; when several tokens come out of one step, or the machine lags, sends get fewer.
"""

from dataclasses import dataclass, field, replace

from vivace.types.answer import AnswerChunk

WINDOW_S = 0.010
MAX_TOKENS = 5


@dataclass(slots=True)
class Coalescer:
    """Gathers chunks. The caller tells the time, and calls `take` when `due_s` has come.

    Args:
        window_s: least time between two sends.
        max_tokens: tokens that are sent at once whatever the time.
    """

    window_s: float = WINDOW_S
    max_tokens: int = MAX_TOKENS
    held: list[AnswerChunk] = field(default_factory=list)
    sent_s: float = float("-inf")

    @property
    def due_s(self) -> float | None:
        """When what is held has to go; None when nothing is."""
        return self.sent_s + self.window_s if self.held else None

    def offer(self, chunk: AnswerChunk, now_s: float) -> list[AnswerChunk]:
        """Take a chunk; returns what has to be sent now, in order."""
        last = self.held[-1] if self.held else None
        if last is not None and last.choice == chunk.choice and last.finish_reason is None:
            self.held[-1] = _joined(last, chunk)
        else:
            self.held.append(chunk)
        num_tokens = sum(len(held.token_ids) for held in self.held)
        is_due = now_s - self.sent_s >= self.window_s
        if is_due or num_tokens >= self.max_tokens or chunk.finish_reason is not None:
            return self.take(now_s)
        return []

    def take(self, now_s: float) -> list[AnswerChunk]:
        """What is held, to be sent now."""
        held, self.held = self.held, []
        if held:
            self.sent_s = now_s
        return held


def _joined(first: AnswerChunk, second: AnswerChunk) -> AnswerChunk:
    return replace(
        second,
        text=first.text + second.text,
        token_ids=first.token_ids + second.token_ids,
        logprobs=first.logprobs + second.logprobs,
    )
