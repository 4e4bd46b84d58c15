"""What one request, or the operator, chooses about a stream. Values only; nothing here runs."""

from dataclasses import dataclass

from vivace.types.errors import RequestError


@dataclass(frozen=True, slots=True)
class DisconnectPolicy:
    """What happens to the work when its last reader has left.

    Args:
        keep_s: seconds it goes on without a reader: 0 ends it at once, None lets it run to its end.
    """

    keep_s: float | None

    @property
    def wire(self) -> str | float:
        """As `parse_disconnect_policy` reads it."""
        return {0.0: "cancel", None: "keep"}.get(self.keep_s, self.keep_s or 0.0)


CANCEL = DisconnectPolicy(0.0)
KEEP = DisconnectPolicy(None)
MAX_KEEP_S = 3600.0


def parse_disconnect_policy(value: str | float) -> DisconnectPolicy:
    """Read "cancel", "keep" or a number of seconds.

    Raises:
        RequestError: something else.
    """
    if value == "cancel":
        return CANCEL
    if value == "keep":
        return KEEP
    if isinstance(value, int | float) and 0 <= value <= MAX_KEEP_S:
        return DisconnectPolicy(float(value))
    raise RequestError(
        f"on_disconnect is {value!r}.",
        f'Use "cancel", "keep", or the seconds to go on without a reader (0 to {MAX_KEEP_S:.0f}).',
        param="stream_options.on_disconnect",
    )


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How one stream behaves.

    Args:
        on_disconnect: see DisconnectPolicy.
        flush: name of a row of `flush.FLUSH_POLICIES`: where text may be cut.
        coalesce: send tokens that arrive within 10 ms of the last send together, up to 5.
        pace: name of a row of `pacing.PACES`.
        events: write the opt-in events, such as "queued", "slow" and "end".
        soft_timeout_s: without a new token for so long, a "slow" event is written; None: never.
        hard_timeout_s: without a new token for so long, once the first has come, the answer is ended with what there
            is; None: never.
        deadline_s: the answer is ended so long after it was accepted, with what there is; None: never.
        retain_s: an ended stream stays readable for at least so long; None: as the registry's limits say.
    """

    on_disconnect: DisconnectPolicy = CANCEL
    flush: str = "token"
    coalesce: bool = False
    pace: str = "off"
    events: bool = False
    soft_timeout_s: float | None = 10.0
    hard_timeout_s: float | None = 30.0
    deadline_s: float | None = None
    retain_s: float | None = None


DEFAULTS = RunOptions()
"""What a stream does when nobody says anything."""
