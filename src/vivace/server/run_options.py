"""From `stream_options` on the wire to what a stream does."""

from dataclasses import replace

from vivace.server.requests import StreamOptions
from vivace.stream.flush import flush_policy
from vivace.stream.options import RunOptions, parse_disconnect_policy
from vivace.stream.pacing import pace
from vivace.types.errors import RequestError


def run_options(wire: StreamOptions | None, defaults: RunOptions) -> RunOptions:
    """What a request chose about its stream; `defaults` are the server's.

    Raises:
        RequestError: a value out of range.
    """
    if wire is None:
        return defaults
    flush_policy(wire.flush or defaults.flush)
    pace(wire.pace or defaults.pace)
    policy = wire.on_disconnect
    return replace(
        defaults,
        on_disconnect=defaults.on_disconnect if policy is None else parse_disconnect_policy(policy),
        flush=wire.flush or defaults.flush,
        coalesce=defaults.coalesce if wire.coalesce is None else wire.coalesce,
        pace=wire.pace or defaults.pace,
        events=bool(wire.events),
        soft_timeout_s=_seconds("soft_timeout_s", wire.soft_timeout_s, defaults.soft_timeout_s),
        hard_timeout_s=_seconds("hard_timeout_s", wire.hard_timeout_s, defaults.hard_timeout_s),
        deadline_s=_seconds("deadline_s", wire.deadline_s, defaults.deadline_s),
    )


def _seconds(name: str, given: float | None, default: float | None) -> float | None:
    if given is None:
        return default
    if not 0 < given <= 86_400:
        raise RequestError(
            f"{name} is {given}.", "Give seconds above 0 and at most 86400.", param=f"stream_options.{name}"
        )
    return given
