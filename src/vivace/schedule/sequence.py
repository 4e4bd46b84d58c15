"""One choice of one request while the engine works on it: known tokens, computed tokens and the blocks that hold them.

Only the scheduler writes sequences; everybody else reads them.
"""

from array import array
from dataclasses import dataclass, field
from enum import Enum, auto

import numpy as np
from numpy.typing import NDArray

from vivace.cache.block_table import BlockTable
from vivace.cache.policies import EVERYTHING, FULL_POLICY, KvPolicy
from vivace.cache.retention import Retention
from vivace.sample.settings import DrawSettings
from vivace.types.events import FinishEvent, FinishReason
from vivace.types.request import GenerationRequest


class SequenceState(Enum):
    """Where a sequence is. Only a running one holds blocks."""

    UNFORKED = auto()  # waits for the first choice of its request to compute the prompt they share
    WAITING = auto()
    RUNNING = auto()
    ENDED = auto()


@dataclass(slots=True, eq=False)
class Sequence:
    """Progress is `num_known` and `num_computed` and nothing else: the scheduler lets computed chase known.

    Args:
        sequence_id: unique in the engine's life.
        order: (arrival number of the request, choice); the smaller one was first.
        settings: how tokens are drawn.
        stop_ids: tokens that end the answer.
        max_known: the answer ends when so many tokens are known.
        num_cached: prompt tokens that were found computed when the sequence first ran.
        arrived_s: when the request came, on the engine's clock.
        expected_tokens: how long the answer was expected to get when the request came.
        token_times_s: when each token came, on the engine's clock.
        last_token_s: when the last token came.
        keys: names of the contents of its full blocks (see cache/prefix.py).
        num_known_at_start: tokens known when it last began to run.
        num_published: how many blocks of its table can be found by others.
        policy: which keys its rows see.
        retention: what it knows of the attention to its blocks, while it runs under a policy that asks.
        table: the blocks of its known tokens.
        local_table: the blocks of layers that see a window of their own.
        num_covered: known tokens below it have slots in every table.
        last_token: the youngest known token.
        num_prompt: tokens of the prompt.
        choice: number of the answer within its request.
        stops: `stop_ids` as the core reads them, int32 (s,).
    """

    sequence_id: int
    request: GenerationRequest
    order: tuple[int, int]
    settings: DrawSettings
    stop_ids: frozenset[int]
    max_known: int
    state: SequenceState = SequenceState.WAITING
    num_known: int = 0
    num_computed: int = 0
    num_cached: int | None = None
    num_known_at_start: int = 0
    num_published: int = 0
    arrived_s: float = 0.0
    expected_tokens: float = 1.0
    last_token_s: float | None = None
    policy: KvPolicy = FULL_POLICY
    retention: Retention | None = None
    table: BlockTable = field(default_factory=BlockTable)
    local_table: BlockTable = field(default_factory=BlockTable)
    keys: list[bytes] = field(default_factory=list)
    num_covered: int = 0
    token_times_s: "array[float]" = field(default_factory=lambda: array("d"))
    last_token: int = field(init=False)
    num_prompt: int = field(init=False)
    choice: int = field(init=False)
    stops: NDArray[np.int32] = field(init=False)
    _tokens: NDArray[np.int32] = field(init=False)

    def __post_init__(self) -> None:
        known = self.request.prompt_ids + self.request.answer_ids
        self.num_known, self.num_prompt = len(known), len(self.request.prompt_ids)
        self.last_token, self.choice = known[-1], self.order[1]
        self.stops = np.array(sorted(self.stop_ids), dtype=np.int32)
        self._tokens = np.empty(len(known) + min(64, self.max_known - len(known)), dtype=np.int32)
        self._tokens[: self.num_known] = known

    @property
    def num_generated(self) -> int:
        """Tokens of the answer so far."""
        return self.num_known - self.num_prompt

    @property
    def num_pending(self) -> int:
        """Known tokens not computed yet; at least 1 while the sequence runs."""
        return self.num_known - self.num_computed

    @property
    def next_decision(self) -> int:
        """Position whose row is computed only after blocks were taken out of the table."""
        return EVERYTHING if self.retention is None else self.retention.next_decision

    @property
    def num_ready(self) -> int:
        """Known tokens that one step may compute."""
        return min(self.num_pending, self.next_decision - self.num_computed)

    @property
    def tokens(self) -> NDArray[np.int32]:
        """All known tokens, int32 (num_known,); a view, right until the next `append`."""
        return self._tokens[: self.num_known]

    def append(self, token_id: int, now_s: float = 0.0) -> None:
        """Know one more token, which came now."""
        if self.num_known == len(self._tokens):
            self._tokens = np.concatenate((self._tokens, np.empty_like(self._tokens)))
        self._tokens[self.num_known] = self.last_token = token_id
        self.num_known += 1
        self.last_token_s = now_s
        self.token_times_s.append(now_s)

    def finish_event(self, reason: FinishReason, num_generated: int) -> FinishEvent:
        """The event that ends this choice."""
        return FinishEvent(
            request_id=self.request.request_id,
            choice=self.choice,
            reason=reason,
            num_prompt_tokens=self.num_prompt,
            num_generated=num_generated,
            num_cached_tokens=self.num_cached or 0,
        )
