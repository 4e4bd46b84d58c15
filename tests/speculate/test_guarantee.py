"""The promise of 0.97: an adversary writes the text, knowing the drafts, and steps cost something else than was timed.

What plain decoding would take is exact here; nothing else is known to the speculator but what a clock tells it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from vivace.speculate.config import SpeculationConfig
from vivace.speculate.costs import StepTimes
from vivace.speculate.guard import ALLOWANCE, ENOUGH_TOKENS, MOST_CREDIT
from vivace.speculate.speculator import EngineSpeculator
from vivace.types.draft import DecodeStep, DraftPlace

PLAIN_MS = 4.0
ROWS = (1, 2, 4, 8, 16, 32, 64)
Adversary = Callable[[int, int, np.random.Generator], int]


def breaks_long_runs(num_drafts: int, step: int, generator: np.random.Generator) -> int:
    """Short guesses stand, and of long ones nothing."""
    return num_drafts if num_drafts < 3 else 0


def lures(num_drafts: int, step: int, generator: np.random.Generator) -> int:
    """Everything stands for a while, then nothing."""
    return num_drafts if step % 60 < 25 else 0


def tosses(num_drafts: int, step: int, generator: np.random.Generator) -> int:
    """Any number of them."""
    return int(generator.integers(num_drafts + 1))


def denies(num_drafts: int, step: int, generator: np.random.Generator) -> int:
    """Only guesses that were not verified are right."""
    return 0


@dataclass(slots=True)
class Machine:
    """True milliseconds of a step; every 97 steps a load comes or goes."""

    slope: float
    load: float
    num_steps: int = 0

    def step_ms(self, rows: int) -> float:
        height = 1.0 + self.load * (self.num_steps // 97 % 2)
        return PLAIN_MS * height * (1 + self.slope * (rows - 1))


@dataclass(slots=True)
class Clock:
    """Every look takes as long."""

    look_ms: float
    now_ns: int = 0

    def __call__(self) -> int:
        self.now_ns += int(self.look_ms * 1e6)
        return self.now_ns


@dataclass(slots=True)
class Outcome:
    """What a run took, in plain steps of its own moments."""

    worth: float = 0.0
    spent: float = 0.0
    num_stood: int = 0
    losses: list[float] = field(default_factory=list)

    @property
    def speed(self) -> float:
        return self.worth / self.spent


def play(adversary: Adversary, machine: Machine, timed_slope: float, look_ms: float, num_streams: int) -> Outcome:
    """Decode ENOUGH_TOKENS tokens a stream. The text repeats itself but where the adversary lets a draft fall."""
    generator = np.random.default_rng(num_streams)
    speculator = EngineSpeculator(SpeculationConfig(("ngram",), "measured", 15), clock=Clock(look_ms))
    speculator.assume_costs(StepTimes({rows: PLAIN_MS * (1 + timed_slope * (rows - 1)) for rows in ROWS}))
    texts = [[1, 2, 3, 1, 2] for _ in range(num_streams)]
    outcome = Outcome()
    while outcome.worth < ENOUGH_TOKENS:
        machine.num_steps += 1
        is_looked_at = not speculator.rests(num_streams)
        drafts: list[tuple[int, ...]] = [()] * num_streams
        if is_looked_at:
            places = [
                DraftPlace(index, np.array(text, dtype=np.int32), 5, 15, "", ("", index))
                for index, text in enumerate(texts)
            ]
            drafts = list(speculator.propose(places, num_streams, 256))
        stood = [adversary(len(mine), machine.num_steps, generator) for mine in drafts]
        for text, mine, count in zip(texts, drafts, stood, strict=True):
            text.extend(mine[:count])
            text.append(text[-3] if count == len(mine) else 100 + int(generator.integers(20)))
        rows, tokens = num_streams + sum(map(len, drafts)), num_streams + sum(stood)
        plain_ms = machine.step_ms(num_streams)
        step_ms = machine.step_ms(rows) + look_ms * is_looked_at
        speculator.note_step(DecodeStep(rows, num_streams, 0, tokens, step_ms))
        outcome.worth += tokens / num_streams
        outcome.spent += step_ms / plain_ms
        outcome.num_stood += sum(stood)
        outcome.losses.append(step_ms / plain_ms - tokens / num_streams)
    return outcome


@dataclass(frozen=True, slots=True)
class HardTimes:
    """What may go wrong. `timed`: the slope that was timed, as a share of the true one."""

    adversary: Adversary
    slope: float
    timed: float
    load: float
    look_ms: float
    num_streams: int

    def check(self) -> None:
        machine = Machine(self.slope, self.load)
        outcome = play(self.adversary, machine, self.slope * self.timed, self.look_ms, self.num_streams)
        assert outcome.speed >= 0.97
        lost = np.cumsum(np.array(outcome.losses) - ALLOWANCE)
        over_any_stretch = (lost - np.minimum.accumulate(np.minimum(lost, 0.0))).max()
        assert over_any_stretch < 4 * MOST_CREDIT  # the purse, and what steps overdraw that take longer than was timed


hard_times = given(
    st.builds(
        HardTimes,
        adversary=st.sampled_from([breaks_long_runs, lures, tosses, denies]),
        slope=st.floats(0.02, 1.0),
        timed=st.floats(0.8, 1.2),
        load=st.floats(0.0, 0.3),
        look_ms=st.floats(0.0, 0.2),
        num_streams=st.sampled_from([1, 2, 4, 16]),
    )
)
UNHURRIED = {"deadline": None, "suppress_health_check": list(HealthCheck), "phases": (Phase.explicit, Phase.generate)}


@hard_times
@settings(max_examples=40, **UNHURRIED)  # type: ignore[arg-type]
def test_no_text_and_no_cost_makes_it_slower_than_was_promised(times: HardTimes) -> None:
    times.check()


@pytest.mark.slow
@pytest.mark.timeout(3600)
@hard_times
@settings(max_examples=2000, **UNHURRIED)  # type: ignore[arg-type]
def test_no_text_and_no_cost_makes_it_slower_two_thousand_times(times: HardTimes) -> None:
    times.check()


def test_a_text_that_goes_on_as_guessed_is_faster_all_the_same() -> None:
    outcome = play(tosses, Machine(0.05, 0.0), 0.05, 0.05, 1)
    assert outcome.speed > 1.2 and outcome.num_stood > 100
