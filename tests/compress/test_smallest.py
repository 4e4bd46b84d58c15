"""The search for the smallest layout that holds: few trials where losses follow the parts' sum, and always an end."""

import math
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vivace.compress.estimate import Estimate, Pace, Work
from vivace.compress.estimate_search import SearchPace, foretell_trials
from vivace.compress.probe import LayerPace, PipelinePace
from vivace.compress.smallest import (
    MOST_TRIALS,
    USUAL_TRIALS,
    LayoutSearch,
    QualityBound,
    Trial,
    find_smallest,
    parse_bound,
)
from vivace.types.errors import ConfigError


@dataclass(frozen=True)
class Curve:
    """A model whose layouts lose `at_five` nats at five bits, and half as much for every half bit more."""

    at_five: float = 0.08

    def span(self) -> tuple[float, float]:
        return 4.5, 12.0

    def layout(self, bits: float) -> tuple[Any, Any]:
        return bits, SimpleNamespace(loss=self.at_five * 4 ** (5 - bits))

    guess = LayoutSearch.guess


def searched(bound: QualityBound, factor: float, strays: tuple[float, ...] = (0.0,)) -> list[Trial]:
    """The trials over a model whose figures are `factor` times the curve, and stray by `strays` in turn."""
    curve, turn = Curve(), iter(range(100))

    def measure(bits: Any) -> Any:
        nats = curve.layout(bits)[1].loss * factor * math.exp(strays[next(turn) % len(strays)])
        return SimpleNamespace(kld=nats, ppl_ratio=math.exp(nats))

    model, trials = find_smallest(curve, bound, lambda recipe: recipe, measure)  # type: ignore[arg-type]
    assert model == min(trial.bits_per_weight for trial in trials if trial.holds)  # type: ignore[comparison-overlap]
    return trials


@pytest.mark.parametrize("name", ["smallest-within:ppl+1%", "smallest-within:ppl+5%", "smallest-within:kl:0.02"])
@pytest.mark.parametrize("factor", [0.6, 1.0, 1.7])
def test_losses_that_follow_the_parts_take_three_trials_whatever_the_factor(name: str, factor: float) -> None:
    bound = parse_bound(name)
    assert bound is not None
    trials = searched(bound, factor)
    assert len(trials) <= 3
    holding = min(trial.bits_per_weight for trial in trials if trial.holds)
    failing = max(trial.bits_per_weight for trial in trials if not trial.holds)
    assert 0 < holding - failing <= 0.05 + 1e-9


@settings(deadline=None)
@given(
    st.floats(0.2, 5.0),
    st.lists(st.floats(-0.4, 0.4), min_size=5, max_size=5),
    st.sampled_from(["smallest-within:ppl+1%", "smallest-within:kl:0.05"]),
)
def test_figures_that_stray_end_in_a_layout_that_holds(factor: float, strays: list[float], name: str) -> None:
    bound = parse_bound(name)
    assert bound is not None
    trials = searched(bound, factor, tuple(strays))
    assert len(trials) <= MOST_TRIALS
    assert all(trial.holds == (trial.measured <= bound.limit) for trial in trials)


def test_better_than_the_source_is_no_reason_to_look_far_away() -> None:
    bound = QualityBound("ppl", 1.01)
    figures = SimpleNamespace(kld=0.004, ppl_ratio=0.998)
    model, trials = find_smallest(Curve(), bound, lambda recipe: recipe, lambda _: figures)  # type: ignore[arg-type]
    assert trials[-1].holds
    assert model == min(trial.bits_per_weight for trial in trials)  # type: ignore[comparison-overlap]
    with pytest.raises(ConfigError, match="Not even"):
        find_smallest(Curve(), bound, lambda recipe: recipe, lambda _: SimpleNamespace(kld=9.0, ppl_ratio=9.0))  # type: ignore[arg-type]


def test_a_search_is_foretold_with_the_usual_trials_and_the_most_beside_them() -> None:
    kind = ("a",)
    pipeline = PipelinePace({kind: LayerPace(0.5, 3.0, 700)}, {}, {}, 0.125)
    pace = Pace(pipeline, 5.0, 2.0, 0.001, 0.002, now_bytes=1000, executor_bytes=300, seen_bytes=10)
    work = Work((kind,) * 4, {}, 2, 8, 50, 40, out_bytes=100, source_bytes=200)
    search = SearchPace(layer_token_s=0.1, build_s=1.0, step_s=0.1, part_s=2.0, weight_s=0.0, ends_s=3.0)
    found = foretell_trials(pace, work, search, {"parts": 20.0})
    assert found.stages["walk"] == USUAL_TRIALS * 8 * (0.125 + 4 * 0.5)
    trial_s = 8 * (0.125 + 4 * 0.5) + 4 * 3 + found.stages["writing"] / USUAL_TRIALS
    trial_s += found.stages["comparing"] / (USUAL_TRIALS + 1)
    assert found.more_s == pytest.approx((MOST_TRIALS - USUAL_TRIALS) * trial_s)
    assert "at most)" in found.sentence()
    assert "at most" not in Estimate(found.stages, 1, None).sentence()
