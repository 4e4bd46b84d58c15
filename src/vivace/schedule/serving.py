"""Which running sequences are served in a step: streams with one token to compute, and prompts.

Streams whose readers have enough to read rest where the order knows readers and others need the step more.
"""

from collections.abc import Iterable

from vivace.schedule.orders.order import Order
from vivace.schedule.sequence import Sequence


def split_running(
    running: Iterable[Sequence], order: Order, now_s: float, max_streams: int, others_wait: bool | None
) -> tuple[list[Sequence], list[Sequence]]:
    """Streams and prompts of the next step.

    Args:
        running: all that hold blocks.
        order: ranks streams and says which may rest.
        now_s: of the step.
        max_streams: most streams of a step; the first in order are taken.
        others_wait: somebody waits for a seat; None: nobody rests.
    """
    streams: list[Sequence] = []
    prompts: list[Sequence] = []
    for sequence in running:
        (streams if sequence.num_known - sequence.num_computed == 1 else prompts).append(sequence)
    if order.knows_readers and others_wait is not None:
        awake = [sequence for sequence in streams if not order.may_rest(sequence, now_s)]
        if prompts or (awake and (others_wait or len(awake) < len(streams))):
            streams = awake
    if len(streams) > max_streams:
        streams = sorted(streams, key=lambda sequence: order.key(sequence, now_s))[:max_streams]
    return streams, prompts


def num_resting(running: Iterable[Sequence], order: Order, now_s: float) -> int:
    """Streams that need no seat now."""
    return sum(order.may_rest(sequence, now_s) for sequence in running) if order.knows_readers else 0
