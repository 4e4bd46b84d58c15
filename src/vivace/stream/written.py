"""How much of an answer is in its log: told to the journal, and left out when a restart does the work again."""

from collections.abc import Mapping
from dataclasses import replace

from vivace.stream.journal import Progress
from vivace.types.answer import AnswerChunk


class WrittenAnswer:
    """Counts what was written, choice by choice.

    Args:
        progress: what the log holds from before a restart. The work is done again from its start, and so much of it is
            not written again.
    """

    def __init__(self, progress: Mapping[int, Progress]) -> None:
        self.progress = dict(progress)
        self._skip = {choice: replace(done) for choice, done in progress.items()}

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
            finish_reason=None if skip.has_finished else chunk.finish_reason,
        )
        is_empty = not (fresh.text or fresh.token_ids or fresh.finish_reason)
        return None if is_empty else fresh

    def note(self, chunk: AnswerChunk) -> None:
        """A chunk was written."""
        progress = self.progress.setdefault(chunk.choice, Progress())
        progress.num_chars += len(chunk.text)
        progress.num_tokens += len(chunk.token_ids)
        progress.has_finished = progress.has_finished or chunk.finish_reason is not None
