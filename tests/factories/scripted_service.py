"""A stand-in for `ModelService` that answers from a script, so that front ends can be tested without a model.

One token is one UTF-8 byte of the prompt; each piece of the script is one drawn token. Requests go through the real
admission.
"""

import asyncio
import threading
import uuid
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import replace

from vivace.engine.admission import RequestLimits, build_request
from vivace.engine.stats import EngineStats
from vivace.types.answer import Answer, AnswerChunk, Choice, TextLogprob, Usage
from vivace.types.errors import UnsupportedModelError, VivaceError
from vivace.types.events import FinishReason
from vivace.types.place import RequestPlace
from vivace.types.request import ChatMessage, GenerationRequest
from vivace.types.speculation import SpeculationUsage

VOCAB_SIZE = 256
SCRIPT = ("Hello", ", ", "wor", "ld", "! ", "你", "好", " 🎉")


class ByteTokenizer:
    """Token ids are bytes."""

    vocab_size = VOCAB_SIZE
    eos_ids = frozenset({0})

    def encode(self, text: str, *, add_special: bool = True) -> list[int]:
        return [1] * add_special + list(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(ids).decode(errors="replace")

    def token_bytes(self, token_id: int) -> bytes:
        return bytes([token_id])


class ScriptedService:
    """Answers every request with the pieces of `script`.

    Args:
        script: what each choice says, a piece a token.
        fail_at: raise `failure` instead of piece number `fail_at`.
        hold_at: wait before piece number `hold_at` until `release()`, a cancel or `close()`.
        warm_up_passes: `complete` (which the server's warm-up calls) neither fails nor waits.
    """

    name = "scripted"
    tokenizer = ByteTokenizer()

    def __init__(
        self,
        script: Sequence[str] = SCRIPT,
        *,
        context_length: int = 512,
        fail_at: int | None = None,
        failure: BaseException | None = None,
        hold_at: int | None = None,
        has_template: bool = True,
        warm_up_passes: bool = False,
    ) -> None:
        self.script = tuple(script)
        self.dropped_tokens = 0
        self.speculation: SpeculationUsage | None = None
        self.places: list[RequestPlace] = []
        self.long_chat: object = None
        self.ready = True
        self.speculates = True
        self.context_length = context_length
        self.hints: list[list[ChatMessage]] = []
        self.requests: list[GenerationRequest] = []
        self.cancelled_ids: set[str] = set()
        self.cancelled = threading.Event()
        self.held = threading.Event()
        self.closed = threading.Event()
        self._fail_at, self._failure, self._hold_at = fail_at, failure, hold_at
        self._has_template = has_template
        self._warm_up_passes = warm_up_passes
        self._released = threading.Event()

    @property
    def conversations(self) -> "ScriptedService":
        """Takes hints; see `hints`."""
        return self

    def expect(self, messages: Sequence[ChatMessage], parameters: Mapping[str, object]) -> None:
        self.hints.append(list(messages))

    def encode(self, text: str, *, add_special: bool = True) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(text, add_special=add_special))

    def encode_chat(self, messages: Sequence[ChatMessage]) -> tuple[int, ...]:
        if not self._has_template:
            raise UnsupportedModelError("The model has no chat template.", "Use raw text.")
        return self.encode("".join(f"<{message.role}>{message.content}" for message in messages) + "<assistant>")

    def admit(
        self,
        prompt_ids: Sequence[int],
        parameters: Mapping[str, object],
        request_id: str | None = None,
        *,
        chat: bool = False,
    ) -> GenerationRequest:
        limits = RequestLimits(VOCAB_SIZE, self.context_length)
        return build_request(prompt_ids, parameters, limits, request_id or uuid.uuid4().hex)

    def admit_chat(
        self, messages: Sequence[ChatMessage], parameters: Mapping[str, object], request_id: str | None = None
    ) -> GenerationRequest:
        given = dict(parameters)
        self.long_chat = given.pop("long_chat", None)
        request = self.admit(self.encode_chat(messages), given, request_id, chat=True)
        return replace(request, dropped_tokens=self.dropped_tokens)

    def iterate(self, request: GenerationRequest) -> Iterator[AnswerChunk]:
        self.requests.append(request)
        for number, chunk in enumerate(self._chunks(request)):
            if number == self._hold_at:
                self.held.set()
                while not self._released.wait(0.005) and not self._ended(request):
                    pass
            if self._ended(request):
                yield AnswerChunk(0, "", finish_reason="cancelled", usage=Usage(len(request.prompt_ids), number))
                return
            if number == self._fail_at:
                raise self._failure or VivaceError("The script says so.")
            yield chunk

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[AnswerChunk, None]:
        chunks = self.iterate(request)
        try:
            while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
                yield chunk
        finally:
            self.cancel(request.request_id)

    knows_readers = False
    has_background = True

    def set_background(self, is_on: bool) -> None:
        self.has_background = is_on

    def set_speculation(self, is_on: bool) -> None:
        self.speculates = is_on

    async def place(self, request_id: str) -> RequestPlace | None:
        return self.places.pop(0) if self.places else None

    def stats(self) -> EngineStats:
        return EngineStats(*range(14))

    def complete(self, request: GenerationRequest) -> Answer:
        chunks = self._chunks(request) if self._warm_up_passes else self.iterate(request)
        return _join(request, list(chunks))

    async def acomplete(self, request: GenerationRequest) -> Answer:
        return _join(request, [chunk async for chunk in self.stream(request)])

    def cancel(self, request_id: str) -> None:
        self.cancelled_ids.add(request_id)
        self.cancelled.set()

    def release(self) -> None:
        self._released.set()

    def close(self) -> None:
        self.closed.set()

    def _ended(self, request: GenerationRequest) -> bool:
        return self.closed.is_set() or request.request_id in self.cancelled_ids

    def _chunks(self, request: GenerationRequest) -> Iterator[AnswerChunk]:
        limit = request.stopping.max_tokens
        pieces = self.script[:limit]
        reason: FinishReason = "length" if limit is not None and limit <= len(self.script) else "stop"
        for piece in pieces:
            for choice in range(request.n):
                yield AnswerChunk(choice, piece, (1,), _logprobs(request, piece))
        usage = Usage(
            len(request.prompt_ids), len(pieces) * request.n, 1, request.dropped_tokens, speculation=self.speculation
        )
        for choice in range(request.n):
            yield AnswerChunk(choice, "", finish_reason=reason, usage=usage if choice == request.n - 1 else None)


def _logprobs(request: GenerationRequest, piece: str) -> tuple[TextLogprob, ...]:
    if request.logprobs is None:
        return ()
    top = tuple((f"{piece}{rank}", f"{piece}{rank}".encode(), -1.0 - rank) for rank in range(request.logprobs))
    return (TextLogprob(piece, piece.encode(), -0.5, top),)


def _join(request: GenerationRequest, chunks: Sequence[AnswerChunk]) -> Answer:
    choices = []
    for number in range(request.n):
        mine = [chunk for chunk in chunks if chunk.choice == number]
        choices.append(
            Choice(
                text="".join(chunk.text for chunk in mine),
                token_ids=tuple(token for chunk in mine for token in chunk.token_ids),
                finish_reason=mine[-1].finish_reason or "stop",
                logprobs=tuple(entry for chunk in mine for entry in chunk.logprobs),
            )
        )
    return Answer(tuple(choices), next(chunk.usage for chunk in chunks if chunk.usage))
