"""A stand-in for the engine whose tokens are a pure function of what was drawn before: choice, attempt and history.

So an answer that is continued, taken back or started again says what the real engine's would: the same from the same
history, something else on another attempt, and never a banned token first.
"""

import hashlib
from collections.abc import AsyncGenerator, Sequence

from vivace.stream.source import Generator
from vivace.types.answer import AnswerChunk, Usage
from vivace.types.request import Continuation, GenerationRequest


class DrawnAnswer:
    """Says `length` tokens of `vocabulary`.

    Attributes:
        num_drawn: tokens drawn, those that a continuation began with left out.
        requests: all requests that were drawn.
    """

    def __init__(self, vocabulary: Sequence[str], length: int = 20) -> None:
        self.vocabulary = tuple(vocabulary)
        self.length = length
        self.num_drawn = 0
        self.requests: list[GenerationRequest] = []
        self.cancelled: set[str] = set()

    @property
    def generator(self) -> Generator:
        return Generator(self.draw, self.cancelled.add)

    async def draw(self, request: GenerationRequest) -> AsyncGenerator[AnswerChunk, None]:
        self.requests.append(request)
        more = request.continuation or Continuation()
        ids = list(more.answer_ids)
        for token_id in ids:
            yield AnswerChunk(0, self.vocabulary[token_id], (token_id,))
        limit = request.stopping.max_tokens
        while len(ids) < (self.length if limit is None else min(limit, self.length)):
            if request.request_id in self.cancelled:
                break
            banned = more.banned_first if len(ids) == len(more.answer_ids) else ()
            ids.append(self.token(request, more, ids, banned))
            self.num_drawn += 1
            yield AnswerChunk(0, self.vocabulary[ids[-1]], (ids[-1],))
        reason = "cancelled" if request.request_id in self.cancelled else "stop"
        yield AnswerChunk(0, "", finish_reason=reason, usage=Usage(len(request.prompt_ids), len(ids)))

    def token(
        self, request: GenerationRequest, more: Continuation, ids: Sequence[int], banned: Sequence[int] = ()
    ) -> int:
        history = (request.sampling.seed, more.choice, more.attempt, tuple(ids)[-2:], len(ids))
        allowed = [token_id for token_id in range(len(self.vocabulary)) if token_id not in banned]
        allowed = allowed or list(banned)  # as the engine does where nothing else is left
        digest = hashlib.blake2b(repr(history).encode(), digest_size=8).digest()
        return allowed[int.from_bytes(digest) % len(allowed)]
