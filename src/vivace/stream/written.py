"""How much of an answer is in its log: told to the journal, and left out when a restart does the work again."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from vivace.stream.journal import Progress
from vivace.types.answer import AnswerChunk
from vivace.types.events import FinishReason


@dataclass(slots=True)
class _Skip:
    num_chars: int
    num_tokens: int


class WrittenAnswer:
    """Counts what was written, choice by choice.

    Args:
        progress: what was written before a restart. The work tells it again, and so much of it is not written again.
    """

    def __init__(self, progress: Mapping[int, Progress]) -> None:
        self.progress = dict(progress)
        self._skip = {choice: _Skip(done.num_chars, len(done.token_ids)) for choice, done in progress.items()}

    @property
    def reasons(self) -> dict[int, FinishReason]:
        """How the choices ended that have."""
        return {choice: known.finish_reason for choice, known in self.progress.items() if known.finish_reason}

    @property
    def num_tokens(self) -> int:
        """Of all choices."""
        return sum(len(known.token_ids) for known in self.progress.values())

    def fresh(self, chunk: AnswerChunk) -> AnswerChunk | None:
        """The part of a chunk that is not in the log yet; None when nothing is left."""
        skip = self._skip.get(chunk.choice)
        if skip is None:
            return chunk
        num_chars, num_tokens = min(skip.num_chars, len(chunk.text)), min(skip.num_tokens, len(chunk.token_ids))
        skip.num_chars -= num_chars
        skip.num_tokens -= num_tokens
        fresh = replace(
            chunk,
            text=chunk.text[num_chars:],
            token_ids=chunk.token_ids[num_tokens:],
            logprobs=chunk.logprobs[num_tokens:],
            finish_reason=None if self.progress[chunk.choice].finish_reason else chunk.finish_reason,
        )
        is_empty = not (fresh.text or fresh.token_ids or fresh.finish_reason)
        return None if is_empty else fresh

    def note(self, chunk: AnswerChunk) -> None:
        """A chunk was written."""
        progress = self.progress.setdefault(chunk.choice, Progress())
        progress.num_chars += len(chunk.text)
        progress.token_ids += chunk.token_ids
        progress.attempt = chunk.attempt if chunk.token_ids else progress.attempt
        progress.finish_reason = chunk.finish_reason or progress.finish_reason
