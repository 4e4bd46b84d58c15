"""Costs, acceptance and the choice of draft lengths."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vivace.speculate.acceptance import UNLIKELY, Acceptance, KindPriors, Watch
from vivace.speculate.config import SpeculationConfig
from vivace.speculate.costs import StepCosts, StepTimes
from vivace.speculate.policy import (
    DRAFTED_EVERY,
    PLAIN_EVERY,
    POLICIES,
    Candidate,
    FixedPolicy,
    MeasuredPolicy,
    WindowLength,
    could_pay,
    margin_of,
)
from vivace.speculate.proposal import Proposal
from vivace.types.errors import ConfigError


def costs_of(slope: float, num_rows: int = 20, noise: float = 0.0) -> StepCosts:
    """Costs that were measured on steps of 1 + slope x (rows - 1) in random order, while the machine drifts."""
    generator = np.random.default_rng(0)
    costs = StepCosts()
    for step in range(40 * num_rows):
        rows = int(generator.integers(1, num_rows + 1))
        drift = 1 + step / 200
        costs.note(rows, 8 * drift * (1 + slope * (rows - 1)) * float(np.exp(noise * generator.normal())))
    return costs


def falling(acceptance: float, length: int = 8) -> Candidate:
    return Candidate(tuple(acceptance ** (index + 1) for index in range(length)), 4)


@pytest.mark.parametrize("slope", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_ratios_of_costs_are_learned_while_the_height_drifts(slope: float, noise: float) -> None:
    costs = costs_of(slope, noise=noise)
    for rows in (2, 5, 9, 20):
        assert costs.of(rows) / costs.of(1) == pytest.approx(1 + slope * (rows - 1), rel=0.12 if noise else 0.06)


def test_one_hiccup_teaches_nothing() -> None:
    costs = costs_of(0.1)
    before = costs.of(2) / costs.of(1)
    costs.note(2, 10_000.0)
    assert costs.of(2) / costs.of(1) == pytest.approx(before, rel=0.05)


def test_costs_between_measured_rows_lie_on_a_line_and_beyond_them_rise() -> None:
    costs = StepCosts()
    assert costs.of(3) > costs.of(2) > costs.of(1) == 1
    for _ in range(30):
        costs.note(1, 10)
        costs.note(5, 14)
    assert costs.of(1) < costs.of(3) < costs.of(5) < costs.of(9)
    assert costs.of(3) * 2 == pytest.approx(costs.of(1) + costs.of(5))


def test_drafts_are_taken_while_they_bring_more_than_they_cost() -> None:
    for slope, acceptance, wanted in ((0.05, 0.9, 8), (0.1, 0.02, 0), (0.9, 0.6, 0)):
        costs = costs_of(slope)
        (chosen,) = MeasuredPolicy().choose([falling(acceptance)], 1, 100, costs).counts
        assert chosen == wanted, (slope, acceptance)


@given(
    st.floats(0, 1),
    st.lists(st.tuples(st.floats(0.01, 0.99), st.integers(0, 8)), min_size=1, max_size=6),
    st.integers(0, 60),
)
@example(0.0, [(0.25, 3)], 3)  # the third draft is too unlikely to be weighed
def test_no_other_choice_of_likely_drafts_expects_more_tokens_a_millisecond(
    slope: float, streams: list[tuple[float, int]], budget: int
) -> None:
    costs = StepCosts()
    for _ in range(3):
        for rows in (1, len(streams), len(streams) + 1, 60):
            costs.note(rows, 1 + slope * (rows - 1))
    candidates = [falling(acceptance, length) for acceptance, length in streams]
    chosen = MeasuredPolicy().choose(candidates, len(streams), budget, costs).counts
    assert sum(chosen) <= budget
    assert all(count <= len(one.cumulative) for count, one in zip(chosen, candidates, strict=True))

    def rate(counts: list[int]) -> float:
        tokens = sum(1 + sum(one.cumulative[:count]) for count, one in zip(counts, candidates, strict=True))
        return tokens / costs.of(len(streams) + sum(counts))

    for index in range(len(streams)):
        for change in (-1, 1):
            other = chosen.copy()
            other[index] += change
            likely = [probability for probability in candidates[index].cumulative if probability >= UNLIKELY]
            is_allowed = 0 <= other[index] <= len(likely) and sum(other) <= budget
            if is_allowed and any(other) and any(chosen):
                assert rate(other) <= rate(chosen) * (1 + 1e-9)
    assert rate(chosen) >= rate([0] * len(streams)) * (1 - 1e-9)


def test_the_other_choice_is_measured_again_now_and_then_and_not_more() -> None:
    costs = costs_of(0.05, num_rows=12)
    policy = MeasuredPolicy()
    chosen = []
    for _ in range(4 * PLAIN_EVERY):
        (count,) = policy.choose([falling(0.9)], 1, 100, costs).counts
        chosen.append(count)
        costs.note(1 + count, 8 * (1 + 0.05 * count))
    assert 3 <= chosen.count(0) <= 4
    costs = costs_of(1.0, num_rows=12)
    chosen = []
    for _ in range(4 * DRAFTED_EVERY):
        (count,) = policy.choose([falling(0.5)], 1, 100, costs).counts
        chosen.append(count)
        costs.note(1 + count, 8 * (1 + 1.0 * count))
    assert 3 <= len(chosen) - chosen.count(0) <= 4


def test_without_guesses_nothing_is_chosen() -> None:
    for make in POLICIES.values():
        assert make(4).choose([Candidate((), 4), Candidate((), 4)], 2, 50, StepCosts()).counts == [0, 0]


def test_fixed_lengths_keep_to_guesses_and_budget() -> None:
    candidates = [falling(0.5, 8), falling(0.5, 2), falling(0.5, 8)]
    assert FixedPolicy(4).choose(candidates, 3, 100, StepCosts()).counts == [4, 2, 4]
    assert FixedPolicy(4).choose(candidates, 3, 7, StepCosts()).counts == [4, 2, 1]


def test_the_chapters_window_moves_by_one_between_two_and_eight() -> None:
    window = WindowLength()
    lengths = []
    for _ in range(8):
        window.note(4, 4)
        lengths.append(window.length)
    assert lengths == [5, 6, 7, 8, 8, 8, 8, 8]
    for _ in range(20):
        window.note(window.length, 0)
    assert window.length == 2
    assert POLICIES["window"](8).choose([Candidate((0.9,) * 8, window.length)], 1, 50, StepCosts()).counts == [2]


def test_a_window_between_its_bounds_stays() -> None:
    window = WindowLength()
    for _ in range(10):
        window.note(3, 2)
    assert window.length == 4
    window.note(0, 0)
    assert window.length == 4


def test_acceptance_follows_a_text_that_turns_within_twenty_tokens() -> None:
    acceptance = Acceptance(KindPriors())
    proposal = Proposal((1, 2, 3, 4), 2)
    watch = Watch("ngram")
    for _ in range(30):
        watch.begin(proposal)
        watch.see((1, 2, 3, 4), "code", acceptance)
    assert acceptance.cumulative("code", "ngram", proposal.evidence, len(proposal.tokens))[0] > 0.9
    for _ in range(20):
        watch.begin(proposal)
        watch.see((9,), "code", acceptance)
    assert acceptance.cumulative("code", "ngram", proposal.evidence, len(proposal.tokens))[0] < 0.2


def test_a_guess_is_watched_whether_or_not_it_was_verified() -> None:
    acceptance, priors = Acceptance(KindPriors()), KindPriors()
    watch = Watch("ngram")
    watch.begin(Proposal((1, 2, 3), 0))
    watch.begin(Proposal((7, 7, 7), 0))
    watch.see((1,), "factual", acceptance)
    watch.see((2, 5, 5), "factual", acceptance)
    assert watch.proposal is None
    fresh = Acceptance(priors).cumulative("factual", "ngram", 0, 3)
    learned = acceptance.cumulative("factual", "ngram", 0, 3)
    assert learned[0] > fresh[0] and learned[2] / learned[1] < fresh[2] / fresh[1]


def test_a_new_request_begins_with_what_the_server_learned_of_its_kind() -> None:
    priors = KindPriors()
    teacher = Acceptance(priors)
    for _ in range(100):
        teacher.note("code", ("ngram", 1, 0), False)
    proposal = Proposal((1,), 1)
    pupil = Acceptance(priors)
    assert (
        pupil.cumulative("code", "ngram", proposal.evidence, len(proposal.tokens))[0]
        < 0.1
        < pupil.cumulative("greeting", "ngram", proposal.evidence, len(proposal.tokens))[0]
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"proposers": ()},
        {"proposers": ("oracle",)},
        {"policy": "hope"},
        {"max_drafts": 0},
        {"max_drafts": 17},
        {"max_drafts": True},
        {"max_drafts": 2.5},
    ],
)
def test_settings_that_can_never_work_are_refused(fields: dict) -> None:
    with pytest.raises(ConfigError):
        SpeculationConfig(**fields)


def test_late_steps_do_not_make_row_counts_dear_that_are_out_of_use() -> None:
    """Noise has a long tail to the right: it moves the height, and must not move the ratios in use against the rest."""
    generator = np.random.default_rng(5)
    costs = StepCosts()
    costs.assume(StepTimes({1: 3.5, 2: 4.0, 4: 5.2, 8: 8.1}))
    for step in range(4000):
        rows, ms = ((1, 3.5), (4, 5.2))[step % 3 == 0]
        costs.note(rows, ms * (1 + float(generator.exponential(0.15))))
    for rows, ms in ((2, 4.0), (4, 5.2), (8, 8.1)):
        assert costs.of(rows) / costs.of(1) == pytest.approx(ms / 3.5, rel=0.1)


def test_a_row_costs_the_more_the_longer_the_texts_are() -> None:
    costs = StepCosts()
    costs.assume(StepTimes({1: 4.0, 8: 9.0}, context=128, pair_ms=0.0005))
    costs.look_at(128)
    assert costs.of(8) / costs.of(1) == pytest.approx(9 / 4)
    near = costs.of(8) - costs.of(1)
    costs.look_at(2128)
    assert costs.of(8) - costs.of(1) == pytest.approx(near + 7 * 2000 * 0.0005 / 4)
    for _ in range(20):
        costs.note(1, 2 * (4.0 + 2000 * 0.0005))
        costs.note(8, 2 * (9.0 + 8 * 2000 * 0.0005))
    costs.look_at(128)
    assert costs.of(8) / costs.of(1) == pytest.approx(9 / 4, rel=0.05)


def test_rows_of_prompts_make_no_draft_look_cheap() -> None:
    """Sixteen streams beside 200 prompt rows: what a draft adds is weighed against what a plain token costs."""
    costs = StepCosts()
    costs.assume(StepTimes({1: 3.5, 4: 5.2, 8: 8.1, 16: 14.0, 32: 26.0}))
    streams = [falling(0.7)] * 16
    assert MeasuredPolicy().choose(streams, 16, 300, costs).counts == [0] * 16
    assert MeasuredPolicy().choose(streams, 216, 300, costs).counts == [0] * 16
    assert MeasuredPolicy().choose([falling(0.9)], 201, 300, costs).counts[0] > 0


def test_costs_that_were_timed_before_serving_decide_from_the_first_step() -> None:
    costs = StepCosts()
    costs.assume(StepTimes())
    assert costs.of(2) > costs.of(1)
    costs.assume(StepTimes({1: 7.5, 2: 10.2, 5: 15.2, 8: 14.2, 9: 16.8}))
    assert costs.of(8) < costs.of(5)
    assert MeasuredPolicy().choose([falling(0.9)], 1, 100, costs).counts == [7]
    assert costs.milliseconds(1) == pytest.approx(7.5)


@given(st.floats(0.0, 1.2), st.integers(1, 16), st.integers(1, 8))
def test_where_drafts_that_all_stand_could_not_pay_none_is_taken_and_elsewhere_they_are(
    slope: float, num_streams: int, most: int
) -> None:
    costs = StepCosts()
    costs.assume(StepTimes({rows: 8.0 + 8.0 * slope * (rows - 1) for rows in (1, 16, 300)}))
    certain = [Candidate((1.0,) * most, 4)] * num_streams
    chosen = sum(MeasuredPolicy().choose(certain, num_streams, num_streams * most, costs).counts)
    assert (chosen > 0) == could_pay(num_streams, most, costs)


def test_the_larger_the_company_the_more_must_drafts_promise() -> None:
    assert margin_of(1) == pytest.approx(1.03) and margin_of(16) > 1.3
    assert [margin_of(count) for count in range(1, 17)] == sorted(margin_of(count) for count in range(1, 17))
