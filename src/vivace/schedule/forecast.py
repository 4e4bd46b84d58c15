"""When a newcomer would get its first token: the queue played forward on measured costs and learned lengths.

Sequences that run are taken to end after the tokens they are expected to have left, each freeing a seat and its blocks;
those ahead in the queue take seats and blocks as they come free. Prompts ahead share what a step leaves for prompts.
"""

import heapq
from collections.abc import Sequence as Rows
from dataclasses import dataclass

from vivace.cache.block_pool import BlockPool
from vivace.cache.block_table import num_blocks_for
from vivace.schedule.config import SchedulerConfig
from vivace.schedule.estimates import Estimates
from vivace.schedule.prompt_budget import LEAST_SHARE
from vivace.schedule.sequence import Sequence, SequenceState
from vivace.types.place import RequestPlace


@dataclass(frozen=True, slots=True)
class Forecast:
    """Seconds from now: until the sequence starts to run, and until its first token."""

    start_s: float
    first_token_s: float


@dataclass(frozen=True, slots=True)
class Room:
    """Seats and blocks, and who holds them."""

    config: SchedulerConfig
    pool: BlockPool
    running: Rows[Sequence]


def forecast(newcomer: Sequence, ahead: Rows[Sequence], room: Room, estimates: Estimates) -> Forecast | None:
    """What a sequence that is about to wait has to expect; None until step costs are known.

    Args:
        newcomer: not in the queue yet.
        ahead: who waits and will be served before the newcomer.
        room: seats and blocks.
        estimates: costs and lengths.
    """
    cost = estimates.steps.cost
    if cost is None:
        return None
    config, running = room.config, room.running
    num_streams = min(len(running) + len(ahead), config.max_sequences)
    pairs = sum(sequence.num_known for sequence in running)
    streams_ms = cost.step_ms(num_streams, pairs) if num_streams else 0.0
    prompt_ms = max(1e3 * config.inter_token_s - streams_ms, LEAST_SHARE * streams_ms, 1e-6)
    prompts_s = sum(estimates.prompt_s(sequence) for sequence in (*running, *ahead) if sequence.num_pending > 1)
    step_s = streams_ms / 1e3
    seats = _Seats(config.max_sequences - len(running), room.pool.num_available)
    for sequence in running:
        seats.leaves(estimates.remaining_tokens(sequence) * step_s, sequence.table.num_blocks)
    for sequence in ahead:
        seats.sit(sequence, estimates.remaining_tokens(sequence) * step_s)
    wait_s = seats.sit(newcomer, 0.0)
    start_s = wait_s + prompts_s if wait_s > 0 else 0.0  # prompts hold up those who are waited for
    stretch = (streams_ms + prompt_ms) / prompt_ms if num_streams else 1.0
    own_s = cost.fixed_ms / 1e3 + estimates.prompt_s(newcomer) * stretch
    return Forecast(start_s, max(start_s, prompts_s * stretch) + own_s)


def place_of(sequence: Sequence, ahead: Rows[Sequence], room: Room, estimates: Estimates) -> RequestPlace:
    """Where a sequence in work is before its first token; `ahead` are those who wait and will be served before it."""
    num_computed = min(sequence.num_computed, sequence.num_prompt)
    if sequence.state is SequenceState.RUNNING:
        return RequestPlace(0, 0.0, sequence.num_prompt, num_computed)
    expected = forecast(sequence, ahead, room, estimates)
    wait_s = None if expected is None else expected.start_s
    return RequestPlace(len(ahead) + 1, wait_s, sequence.num_prompt, num_computed)


class _Seats:
    """Seats and blocks that come free as sequences end."""

    def __init__(self, num_seats: int, num_blocks: int) -> None:
        self._num_seats = num_seats
        self._num_blocks = num_blocks
        self._ends: list[tuple[float, int]] = []
        self._now_s = 0.0

    def leaves(self, at_s: float, num_blocks: int) -> None:
        """Somebody ends then and frees so much."""
        heapq.heappush(self._ends, (at_s, num_blocks))

    def sit(self, sequence: Sequence, stays_s: float) -> float:
        """Seat the next one as soon as there is room; returns when."""
        needed = num_blocks_for(sequence.num_known)
        while (self._num_seats < 1 or self._num_blocks < needed) and self._ends:
            ended_s, freed = heapq.heappop(self._ends)
            self._now_s = max(self._now_s, ended_s)
            self._num_seats += 1
            self._num_blocks += freed
        self._num_seats -= 1
        self._num_blocks -= needed
        self.leaves(self._now_s + stays_s, needed)
        return self._now_s
