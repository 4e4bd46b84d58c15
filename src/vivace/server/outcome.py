"""How an answer ended and what it cost, on the wire."""

from collections.abc import Iterable

from msgspec import UNSET, UnsetType

from vivace.server.responses import PromptDetails, VivaceUsage, WireFinish, WireSpeculation, WireUsage
from vivace.types.answer import Usage
from vivace.types.errors import OverloadedError
from vivace.types.events import FinishReason
from vivace.types.request import GenerationRequest
from vivace.types.speculation import SpeculationUsage

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
        vivace=_vivace_usage(usage),
    )


def _vivace_usage(usage: Usage) -> VivaceUsage | UnsetType:
    """What there is to tell beyond the OpenAI API; nothing for most answers."""
    if not usage.dropped_tokens and usage.speculation is None:
        return UNSET
    return VivaceUsage(
        usage.dropped_tokens or UNSET, UNSET if usage.speculation is None else wire_speculation(usage.speculation)
    )


def wire_speculation(usage: SpeculationUsage) -> WireSpeculation:
    """What drafts did, on the wire; the speed-up is against plain decoding as measured costs have it."""
    return WireSpeculation(
        drafted=usage.num_drafted,
        accepted=usage.num_accepted,
        accepted_at=list(usage.accepted_at),
        tried_at=list(usage.tried_at),
        drafts_over_time=list(usage.drafts_over_time),
        tokens_per_turn=round(usage.num_tokens / usage.num_turns, 3) if usage.num_turns else 1.0,
        speedup=round(usage.speedup, 3),
    )


def dropped_header(requests: Iterable[GenerationRequest]) -> dict[str, str]:
    """The header that tells how many tokens of a long chat the answer does not see; none where it sees all."""
    dropped = sum(request.dropped_tokens for request in requests)
    return {"x-vivace-dropped-tokens": str(dropped)} if dropped else {}
