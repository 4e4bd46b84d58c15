"""An executor that says a given answer, one token after the other, whatever was asked; and a service around it."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from factories.text_vocabularies import byte_level
from factories.tiny_models import tiny_spec
from vivace.engine.core import Engine
from vivace.engine.loop import EngineLoop
from vivace.engine.service import ModelService
from vivace.schedule.config import SchedulerConfig
from vivace.text.build import build_template, build_tokenizer
from vivace.text.tokenizer import Tokenizer
from vivace.types.step import ForwardBatch

NUM_PROMPT = 4
PROMPT = (10, 11, 12, 13)


class SpeakingExecutor:
    """The row at position p makes answer[p + 1 - NUM_PROMPT] by far the likeliest token, and the last one after it.

    `before_forward` may wait or raise.
    """

    def __init__(
        self,
        answer: Sequence[int],
        vocab_size: int,
        before_forward: Callable[[ForwardBatch], None] = lambda batch: None,
    ) -> None:
        self.answer, self.vocab_size = tuple(answer), vocab_size
        self.num_blocks, self.max_rows = 64, 512
        self.before_forward = before_forward
        self.is_closed = False

    def forward(self, batch: ForwardBatch) -> NDArray[np.float32]:
        self.before_forward(batch)
        logits = np.zeros((len(batch.logit_rows), self.vocab_size), dtype=np.float32)
        for out, row in zip(logits, batch.logit_rows.tolist(), strict=True):
            index = int(batch.positions[row]) + 1 - NUM_PROMPT
            out[self.answer[min(index, len(self.answer) - 1)]] = 20.0
        return logits

    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        pass

    def close(self) -> None:
        self.is_closed = True


def make_tokenizer() -> Tokenizer:
    """Byte-level, with end of turn "<|im_end|>" as id 2."""
    return build_tokenizer(byte_level())


def make_service(
    answer: str | Sequence[int],
    before_forward: Callable[[ForwardBatch], None] = lambda batch: None,
    context_length: int = 128,
) -> tuple[ModelService, SpeakingExecutor]:
    """A service that says `answer` and ends its turn; token ids instead of text are said as they are."""
    vocabulary = byte_level()
    tokenizer = build_tokenizer(vocabulary)
    ids = [*tokenizer.encode(answer, add_special=False), 2] if isinstance(answer, str) else answer
    executor = SpeakingExecutor(ids, tokenizer.vocab_size, before_forward)
    config = SchedulerConfig(context_length=context_length, eos_ids=tokenizer.eos_ids)
    spec = replace(tiny_spec(), vocab_size=tokenizer.vocab_size)
    template = build_template(vocabulary, tokenizer)
    loop = EngineLoop(Engine(executor, config))
    return ModelService("speaker", spec, tokenizer, template, loop, context_length=context_length), executor
