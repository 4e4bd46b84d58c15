"""How well a model guesses another's text, tried before serving; and after which layer one should guess for itself.

The model writes a short text; then a draft model, or the first layers alone, are asked position by position what comes
next. The share they get right is what is first expected of them, and with what a pass takes it decides which exit
promises most.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vivace.plan.speculate import expected_speedup, interpolate
from vivace.speculate.measure_costs import measure_step_costs
from vivace.telemetry.clock import Clock, now_ns
from vivace.types.errors import ConfigError
from vivace.types.step import BLOCK_SIZE, Executor, ForwardBatch

NUM_TOKENS = 48
MAX_DRAFTS = 4
SHARES = (1 / 4, 1 / 2, 3 / 4)  # of the layers; an exit in between is taken with the option
REPEATS = 3


class ExitingExecutor(Executor, Protocol):
    """An executor whose model can leave off early."""

    def early_exit(self, num_layers: int, max_rows: int) -> Executor:
        """The first layers with the final norm and head, over the same weights and KV pool."""
        ...


@dataclass(frozen=True, slots=True)
class Trial:
    """A text that the model wrote, likeliest token by likeliest token, after `num_prompt` tokens."""

    tokens: tuple[int, ...]
    num_prompt: int


@dataclass(frozen=True, slots=True)
class ExitFigures:
    """Of an exit: share of next tokens that it got right, milliseconds of a pass of one row, best speed-up by it."""

    num_layers: int
    acceptance: float
    pass_ms: float
    speedup: float


def write_trial(executor: Executor, prompt_ids: Sequence[int]) -> Trial:
    """Let the model write. What the first blocks hold is lost.

    Args:
        executor: nobody else uses it meanwhile.
        prompt_ids: what the text begins with.

    Raises:
        ConfigError: the executor is too small for the text.
    """
    num_rows = len(prompt_ids) + NUM_TOKENS
    if num_rows > min(executor.max_rows, executor.num_blocks * BLOCK_SIZE):
        raise ConfigError(f"An executor of {executor.num_blocks} blocks cannot try a guess.", "Allow more KV memory.")
    tokens = list(prompt_ids)
    logits = _forward(executor, tokens, 0)
    for _ in range(NUM_TOKENS):
        tokens.append(int(logits[-1].argmax()))
        logits = _forward(executor, tokens, len(tokens) - 1)
    return Trial(tuple(tokens), len(prompt_ids))


def acceptance_of(drafter: Executor, trial: Trial) -> float:
    """Share of the tokens of a trial that a drafter's executor foresees, one by one.

    A draft model writes its own pool, an early exit the bits that are there.
    """
    first = trial.num_prompt - 1
    guessed = _forward(drafter, trial.tokens[:-1], 0)[first:].argmax(axis=1)
    return float(np.mean(guessed == np.array(trial.tokens[first + 1 :])))


def measure_exits(
    executor: ExitingExecutor,
    layers: Sequence[int],
    trial: Trial,
    step_ms: Mapping[int, float],
    clock: Clock = now_ns,
) -> list[ExitFigures]:
    """Figures of exits after each number of layers. What the first blocks hold is lost.

    Args:
        executor: nobody else uses it meanwhile.
        layers: candidates.
        trial: written by the whole model.
        step_ms: milliseconds of the whole model's steps by rows, with an entry for 1.
        clock: to time with.

    Raises:
        ConfigError: the model has not so many layers.
    """
    relative = {rows: ms / step_ms[1] for rows, ms in step_ms.items()}
    figures = []
    for num_layers in layers:
        early = executor.early_exit(num_layers, len(trial.tokens))
        acceptance = acceptance_of(early, trial)
        pass_ms = measure_step_costs(early, (1,), context=trial.num_prompt, repeats=REPEATS, clock=clock)[1]
        speedup = max(
            expected_speedup(acceptance, count, pass_ms / step_ms[1], interpolate(relative, count + 1))
            for count in range(1, MAX_DRAFTS + 1)
        )
        figures.append(ExitFigures(num_layers, acceptance, pass_ms, speedup))
    return figures


def choose_exit(figures: Sequence[ExitFigures]) -> ExitFigures:
    """The exit that promises most; the earliest of equals."""
    return max(figures, key=lambda one: (one.speedup, -one.num_layers))


def candidate_layers(num_layers: int) -> tuple[int, ...]:
    """Exits worth measuring in a model of so many layers, ascending."""
    return tuple(sorted({max(1, min(num_layers - 1, round(num_layers * share))) for share in SHARES}))


def _forward(executor: Executor, tokens: Sequence[int], start: int) -> NDArray[np.float32]:
    count = len(tokens) - start
    positions = np.arange(start, len(tokens), dtype=np.int32)
    return executor.forward(
        ForwardBatch(
            token_ids=np.array(tokens[start:], dtype=np.int32),
            positions=positions,
            sequence_starts=np.array([0, count], dtype=np.int32),
            block_tables=np.arange(-(-len(tokens) // BLOCK_SIZE), dtype=np.int32)[None],
            logit_rows=np.arange(count, dtype=np.int32),
        )
    )
