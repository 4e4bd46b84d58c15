"""The fake executor with a next step that begins by itself, as the core does it."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from engine.fake_executor import FakeExecutor
from vivace.sample.sampler import Sampler
from vivace.sample.settings import DrawRow, DrawSettings
from vivace.types.drawing import DrawNumbers
from vivace.types.request import SamplingParams
from vivace.types.step import ForwardBatch


class RelayingExecutor(FakeExecutor):
    """See types/relay.py. An eager one computes a step when it begins, others when it is finished: both may be."""

    def __init__(
        self,
        num_blocks: int = 64,
        poison: int | None = None,
        before_forward: Callable[[ForwardBatch], None] = lambda batch: None,
        *,
        num_local_blocks: int = 0,
        is_eager: bool = False,
    ) -> None:
        super().__init__(num_blocks, poison=poison, before_forward=before_forward, num_local_blocks=num_local_blocks)
        self.num_relayed = 0
        self._is_eager, self._is_held = is_eager, False
        self._batch: ForwardBatch | None = None
        self._logits: NDArray[np.float32] | None = None
        self._next: ForwardBatch | None = None

    def start(self, batch: ForwardBatch) -> None:
        assert self._batch is None
        self._batch, self._logits = batch, self.forward(batch) if self._is_eager else None

    def finish(self) -> NDArray[np.float32]:
        assert self._batch is not None
        batch, self._batch = self._batch, None
        return self.forward(batch) if self._logits is None else self._logits

    def prepare(self, batch: ForwardBatch) -> None:
        assert self._batch is not None, "nothing is under way"
        assert len(batch.token_ids) == len(batch.logit_rows) == len(batch.sequence_starts) - 1
        self._next, self._is_held = batch, False

    def relay(
        self, rows: Sequence[DrawNumbers], histories: Sequence[NDArray[np.int32]], stops: Sequence[NDArray[np.int32]]
    ) -> tuple[list[int], NDArray[np.float32] | None]:
        following, self._next = self._next, None
        assert following is not None, "nothing was prepared"
        logits = self.finish()
        told = [DrawRow(_settings(row), history) for row, history in zip(rows, histories, strict=True)]
        tokens = [draw.token_id for draw in Sampler().sample(logits, told)]
        if self._is_held or any(token < 0 or token in ends for token, ends in zip(tokens, stops, strict=True)):
            return tokens, logits
        self.num_relayed += 1
        self.start(replace(following, token_ids=np.array(tokens, dtype=np.int32)))
        return tokens, None

    def hold(self) -> None:
        self._is_held = True


def _settings(row: DrawNumbers) -> DrawSettings:
    temperature, top_p, min_p, repetition, presence, frequency, top_k, num_prompt, choice, high, low, is_greedy = (
        row.numbers.tolist()
    )
    params = SamplingParams(
        temperature=0.0 if is_greedy else temperature,
        top_k=int(top_k),
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition,
        presence_penalty=presence,
        frequency_penalty=frequency,
        logit_bias=tuple(zip(row.bias_ids.tolist(), row.bias_values.tolist(), strict=True)),
    )
    return DrawSettings(params, (int(high) << 32) | int(low), int(choice), int(num_prompt))
