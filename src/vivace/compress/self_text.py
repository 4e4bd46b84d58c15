"""Calibration text that the model writes itself, for when there is none: sampled sequences from random first tokens.

Liu et al., "LLM-QAT" (2023), section 3.1: what a model says is close to what it was trained on, and needs no data.
"""

import time
from collections.abc import Callable

import numpy as np

from vivace.compress.recipe import CalibrationSettings
from vivace.execute.score import Tokens
from vivace.types.step import BLOCK_SIZE, Executor, ForwardBatch

_BATCH = 16  # sequences that grow together


def blocks_needed(settings: CalibrationSettings) -> int:
    """KV blocks that an executor must have for `write_samples`."""
    return min(settings.samples, _BATCH) * -(-settings.tokens // BLOCK_SIZE)


def write_samples(
    executor: Executor,
    settings: CalibrationSettings,
    bos_id: int | None,
    report: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> list[Tokens]:
    """Let the model write `settings.samples` windows of `settings.tokens` tokens, seeded.

    Args:
        executor: with `blocks_needed` KV blocks and at least 16 rows a step.
        settings: how many, how long, and the seed.
        bos_id: first token of each window; None for models that take no BOS.
        report: told how many tokens of a batch are written.
    """
    generator = np.random.default_rng(settings.seed)
    written: list[Tokens] = []
    while len(written) < settings.samples:
        count = min(_BATCH, settings.samples - len(written))
        windows = np.zeros((count, settings.tokens), np.int32)
        windows[:, 0] = bos_id if bos_id is not None else generator.integers(executor.vocab_size, size=count)
        for position in range(settings.tokens - 1):
            logits = executor.forward(_one_token_each(windows, position))
            windows[:, position + 1] = _draw(logits, generator, first=position == 0)
            if position % 32 == 0:
                done = len(written) * settings.tokens + count * position
                report(done, settings.samples * settings.tokens, "the model writes text")
        written += list(windows)
    return written


def seconds_a_step(executor: Executor, settings: CalibrationSettings, steps: int = 4) -> float:
    """What a step of `write_samples` takes in the middle of its windows, the mean of a few after a first one."""
    windows = np.zeros((min(settings.samples, _BATCH), settings.tokens), np.int32)
    generator = np.random.default_rng(settings.seed)
    started = 0.0
    for step in range(steps + 1):
        position = settings.tokens // 2 + step
        _draw(executor.forward(_one_token_each(windows, position)), generator, first=False)
        if step == 0:
            started = time.perf_counter()
    return (time.perf_counter() - started) / steps


def steps_needed(settings: CalibrationSettings) -> int:
    """Steps that `write_samples` takes."""
    return -(-settings.samples // _BATCH) * (settings.tokens - 1)


def _draw(logits: np.ndarray, generator: np.random.Generator, *, first: bool) -> np.ndarray:
    """One token a row from the softmax; the first after BOS at a higher temperature, so that the texts differ."""
    scaled = logits.astype(np.float64) / (2.0 if first else 1.0)
    noise = generator.gumbel(size=scaled.shape)
    drawn: np.ndarray = (scaled + noise).argmax(axis=-1)
    return drawn


def _one_token_each(windows: np.ndarray, position: int) -> ForwardBatch:
    count, size = windows.shape
    per_window = -(-size // BLOCK_SIZE)
    return ForwardBatch(
        token_ids=np.ascontiguousarray(windows[:, position], dtype=np.int32),
        positions=np.full(count, position, np.int32),
        sequence_starts=np.arange(count + 1, dtype=np.int32),
        block_tables=np.arange(count * per_window, dtype=np.int32).reshape(count, per_window),
        logit_rows=np.arange(count, dtype=np.int32),
    )
