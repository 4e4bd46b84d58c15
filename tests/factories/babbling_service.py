"""A real service over a fake model that babbles: each token is a hash of all that was said before, read through the KV.

What it says after a restart, a rollback or an edit is right only when engine, scheduler, KV blocks and random stream
were brought back rightly; and it is fast, so that it can be done a thousand times.
"""

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from engine.fake_executor import FakeExecutor
from factories.text_vocabularies import byte_level
from factories.tiny_models import tiny_spec
from vivace.engine.core import Engine
from vivace.engine.loop import EngineLoop
from vivace.engine.service import ModelService
from vivace.schedule.config import SchedulerConfig
from vivace.text.build import build_template, build_tokenizer
from vivace.types.step import ForwardBatch

PIECES = (" hello", " world", "123", "user", "assistant", ".", " ", "\n", "?", "a", "b", "-", "你", "好", "。", "🎉")


class BabblingExecutor(FakeExecutor):
    """Draws from the tokens of `pieces` alone, as a hash of the history says.

    Args:
        pieces: texts whose tokens may be drawn.
        step_s: a step takes at least so long.
    """

    def __init__(self, pieces: Sequence[str] = PIECES, *, step_s: float = 0.0, num_blocks: int = 512) -> None:
        tokenizer = build_tokenizer(byte_level())
        super().__init__(num_blocks, 512, tokenizer.vocab_size)
        ids = {token for piece in pieces for token in tokenizer.encode(piece, add_special=False)}
        self._others = np.array([token for token in range(tokenizer.vocab_size) if token not in ids])
        self._step_s = step_s

    def forward(self, batch: ForwardBatch) -> NDArray[np.float32]:
        if self._step_s:
            time.sleep(self._step_s)  # the model's work
        logits = super().forward(batch)
        logits[:, self._others] = -np.inf
        return logits


def babbling_service(
    *,
    context_length: int = 1024,
    step_s: float = 0.0,
    pieces: Sequence[str] = PIECES,
    num_blocks: int = 512,
    prefix_cache: bool = True,
) -> ModelService:
    """A service whose answers end by length alone."""
    vocabulary = byte_level()
    tokenizer = build_tokenizer(vocabulary)
    executor = BabblingExecutor(pieces, step_s=step_s, num_blocks=num_blocks)
    config = SchedulerConfig(
        context_length=context_length, eos_ids=tokenizer.eos_ids, prefix_cache=prefix_cache, max_batch_tokens=256
    )
    loop = EngineLoop(Engine(executor, config))
    spec = replace(tiny_spec(), vocab_size=tokenizer.vocab_size)
    template = build_template(vocabulary, tokenizer)
    return ModelService("babbling", spec, tokenizer, template, loop, context_length=context_length)
