"""How an answer ended and what it cost, on the wire."""

from msgspec import UNSET

from vivace.server.responses import PromptDetails, VivaceUsage, WireFinish, WireUsage
from vivace.types.answer import Usage
from vivace.types.errors import OverloadedError
from vivace.types.events import FinishReason

_FINISHES: dict[FinishReason, WireFinish] = {
    "stop": "stop",
    "length": "length",
    "content_filter": "content_filter",
    "timeout": "length",
}


def wire_finish(reason: FinishReason) -> WireFinish:
    """The finish reason the OpenAI API has for ours.

    Raises:
        OverloadedError: the answer was cancelled from this side, for which that API has no finish reason.
    """
    finish = _FINISHES.get(reason)
    if finish is None:
        raise OverloadedError("The answer was ended by the server before it was complete.", "Send the request again.")
    return finish


def stream_finish(reason: FinishReason) -> WireFinish:
    """As `wire_finish`, for a stream, whose reader knows that it stopped the answer: that ended as wanted."""
    return "stop" if reason == "cancelled" else wire_finish(reason)


def wire_usage(usage: Usage) -> WireUsage:
    """Token counts as the OpenAI API has them."""
    return WireUsage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.total_tokens,
        prompt_tokens_details=PromptDetails(usage.cached_tokens),
        vivace=VivaceUsage(usage.dropped_tokens) if usage.dropped_tokens else UNSET,
    )
