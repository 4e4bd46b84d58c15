"""Writes the answer to one request of the Responses API: its events, and the response object as it is at any moment."""

import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import msgspec

from vivace.server.errors import error_body
from vivace.server.logprobs import chat_logprobs
from vivace.server.reply import with_seed
from vivace.server.response_types import (
    CachedDetails,
    DeltaEvent,
    IncompleteDetails,
    ItemEvent,
    OutputMessage,
    OutputText,
    PartEvent,
    ReasoningDetails,
    ResponseBody,
    ResponseError,
    ResponseEvent,
    ResponseSettings,
    ResponseStatus,
    ResponseUsage,
    TextDoneEvent,
)
from vivace.server.responses import WireLogprob
from vivace.stream.journal import SavedRun
from vivace.stream.lifecycle import StreamStatus
from vivace.types.answer import AnswerChunk, Usage
from vivace.types.errors import VivaceError
from vivace.types.events import FinishReason
from vivace.types.request import ChatMessage, GenerationRequest


@dataclass(slots=True)
class ReplyState:
    """What has been written so far."""

    has_begun: bool = False
    text: str = ""
    logprobs: list[WireLogprob] = field(default_factory=list)
    reason: FinishReason | None = None
    final: ResponseBody | None = None


@dataclass(slots=True)
class ResponseReply:
    """Writes one response.

    Args:
        request: what the engine is asked.
        settings: told back in the response.
        conversation: the turns that the answer belongs to, for the request that names this one as its previous.
        response_id: also the name of the stream.
    """

    request: GenerationRequest
    settings: ResponseSettings
    conversation: list[ChatMessage]
    response_id: str
    created_at: int = field(default_factory=lambda: int(time.time()))
    item_id: str = field(default_factory=lambda: f"msg_{secrets.token_urlsafe(24)}")
    state: ReplyState = field(default_factory=ReplyState)

    @property
    def model(self) -> str:
        """The name the answer is given under."""
        return self.settings.model

    @property
    def engine_requests(self) -> Sequence[GenerationRequest]:
        """The one request."""
        return (self.request,)

    @property
    def opens_at_once(self) -> bool:
        """Nobody waits for a background response, so it is told in its log how it began."""
        return self.settings.background

    def seeded(self) -> Self:
        """See Reply."""
        return replace(self, request=with_seed(self.request))

    def restore(self, saved: SavedRun) -> None:
        """Read the state out of the events."""
        for event in saved.events:
            if not event.name:
                self._restore_one(msgspec.json.decode(event.payload))

    def body(self, ended: StreamStatus = StreamStatus.RUNNING) -> ResponseBody:
        """The response as it is now; `ended` tells of a stream that ended without a last word of ours."""
        state = self.state
        if state.final is not None:
            return state.final
        now: ResponseStatus = "in_progress" if state.has_begun or not self.settings.background else "queued"
        if ended is not StreamStatus.RUNNING:
            now = "cancelled" if ended is StreamStatus.CANCELLED else "failed"
        return self._body(now)

    def opening(self) -> Iterator[bytes]:
        """The response as it was accepted."""
        yield self._whole("response.created")
        if self.settings.background:
            yield self._whole("response.queued")

    def piece(self, chunk: AnswerChunk) -> Iterator[bytes]:
        """More text, after the events that begin the item it belongs to."""
        yield from self._begin()
        self.state.reason = chunk.finish_reason or self.state.reason
        logprobs = [] if self.request.logprobs is None else chat_logprobs(chunk.logprobs).content
        if chunk.text or logprobs:
            self.state.text += chunk.text
            self.state.logprobs += logprobs
            yield msgspec.json.encode(DeltaEvent(item_id=self.item_id, delta=chunk.text, logprobs=logprobs))

    def closing(self, usage: Usage | None) -> Iterator[bytes]:
        """The text, its part, its item and the response, each as a whole."""
        yield from self._begin()
        state = self.state
        done = TextDoneEvent(item_id=self.item_id, text=state.text, logprobs=state.logprobs)
        yield msgspec.json.encode(done)
        status, details = _END_OF_REASON[state.reason or "stop"]
        item = self._item("completed" if status == "completed" else "incomplete")
        part = PartEvent(type="response.content_part.done", item_id=self.item_id, part=item.content[0])
        yield msgspec.json.encode(part)
        yield msgspec.json.encode(ItemEvent(type="response.output_item.done", item=item))
        state.final = self._body(status, details=details, usage=usage)
        # a cancelled response has no event type of its own in that API; its status tells
        yield self._whole("response.completed" if status == "completed" else "response.incomplete")

    def failure(self, error: VivaceError) -> bytes:
        """The response as it failed."""
        told = error_body(error).error
        self.state.final = self._body("failed", error=ResponseError(told.code or "server_error", told.message))
        return self._whole("response.failed")

    def _begin(self) -> Iterator[bytes]:
        if self.state.has_begun:
            return
        self.state.has_begun = True
        yield self._whole("response.in_progress")
        item = OutputMessage(id=self.item_id, status="in_progress", content=[])
        yield msgspec.json.encode(ItemEvent(type="response.output_item.added", item=item))
        part = PartEvent(type="response.content_part.added", item_id=self.item_id, part=OutputText(text=""))
        yield msgspec.json.encode(part)

    def _whole(self, event_type: str) -> bytes:
        return msgspec.json.encode(ResponseEvent(type=event_type, response=self.body()))

    def _item(self, status: str) -> OutputMessage:
        text = OutputText(text=self.state.text, logprobs=self.state.logprobs)
        return OutputMessage(id=self.item_id, status=status, content=[text])  # type: ignore[arg-type]

    def _body(
        self,
        status: ResponseStatus,
        *,
        details: IncompleteDetails | None = None,
        usage: Usage | None = None,
        error: ResponseError | None = None,
    ) -> ResponseBody:
        item_status = status if status in ("in_progress", "completed") else "incomplete"
        return ResponseBody(
            **msgspec.structs.asdict(self.settings),
            id=self.response_id,
            created_at=self.created_at,
            status=status,
            error=error,
            incomplete_details=details,
            output=[self._item(item_status)] if self.state.text or status == "completed" else [],
            usage=None if usage is None else _usage(usage),
        )

    def _restore_one(self, told: dict[str, Any]) -> None:
        event_type = told["type"]
        if event_type == "response.in_progress":
            self.state.has_begun = True
        elif event_type == "response.output_text.delta":
            delta = msgspec.convert(told, DeltaEvent)
            self.state.text += delta.delta
            self.state.logprobs += delta.logprobs
        elif event_type in _TERMINAL:
            self.state.final = msgspec.convert(told["response"], ResponseBody)


_TERMINAL = ("response.completed", "response.incomplete", "response.failed")
_END_OF_REASON: dict[FinishReason, tuple[ResponseStatus, IncompleteDetails | None]] = {
    "stop": ("completed", None),
    "length": ("incomplete", IncompleteDetails("max_output_tokens")),
    "timeout": ("incomplete", IncompleteDetails("max_output_tokens")),
    "content_filter": ("incomplete", IncompleteDetails("content_filter")),
    "cancelled": ("cancelled", None),
}


def _usage(usage: Usage) -> ResponseUsage:
    return ResponseUsage(
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.total_tokens,
        CachedDetails(usage.cached_tokens),
        ReasoningDetails(),
    )
