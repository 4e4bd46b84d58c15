"""Verification keeps the distribution exactly: compared with definitions, and by chi-squared over 100,000 samples."""

import numpy as np
import pytest
from numpy.typing import NDArray

from sample.naive import adjusted, distribution
from vivace.sample.sampler import Sampler
from vivace.sample.settings import DrawRow, DrawSettings
from vivace.speculate.distribution import target_distribution
from vivace.speculate.verify import count_confirmed, draw_and_compare, pick, reject_sample, residual
from vivace.types.errors import ConfigError
from vivace.types.request import SamplingParams

VOCAB = 8
NUM_SAMPLES = 100_000
KINDS = (
    SamplingParams(temperature=1.0),
    SamplingParams(temperature=0.7, top_p=0.8),
    SamplingParams(temperature=1.3, top_k=5, min_p=0.05),
    SamplingParams(repetition_penalty=1.3, frequency_penalty=0.4, presence_penalty=0.2, logit_bias=((2, 1.0), (3, -9))),
)


def logits_after(history: tuple[int, ...]) -> NDArray[np.float32]:
    """A made-up model: logits that depend on the last two tokens."""
    seed = sum((token + 1) * 31**index for index, token in enumerate(reversed(history[-2:])))
    return np.random.default_rng(seed).normal(0, 1.5, VOCAB).astype(np.float32)


def rows_after(history: tuple[int, ...], drafts: tuple[int, ...]) -> NDArray[np.float32]:
    return np.stack([logits_after((*history, *drafts[:index])) for index in range(len(drafts) + 1)])


def naive_target(history: tuple[int, ...], params: SamplingParams, num_prompt: int) -> NDArray[np.float64]:
    return distribution(adjusted(logits_after(history), list(history), num_prompt, params), params)


def chi_squared_bound(num_cells: int) -> float:
    """Far beyond the 0.999 quantile for so many cells (Wilson and Hilferty, 1931, at 4 sigma)."""
    degrees = max(num_cells - 1, 1)
    return float(degrees * (1 - 2 / (9 * degrees) + 4.0 * np.sqrt(2 / (9 * degrees))) ** 3)


def assert_distributed(counts: NDArray[np.int64], expected: NDArray[np.float64]) -> None:
    assert counts[expected == 0].sum() == 0
    kept = expected > 0
    scaled = expected[kept] * counts.sum()
    statistic = float(((counts[kept] - scaled) ** 2 / scaled).sum())
    assert statistic < chi_squared_bound(int(kept.sum()))


@pytest.mark.parametrize("params", KINDS)
def test_the_written_out_distribution_is_the_one_the_sampler_draws_from(params: SamplingParams) -> None:
    history = (1, 2, 2, 5)
    settings = DrawSettings(params, seed=0, num_prompt=2)
    tokens = np.array(history, dtype=np.int32)
    written = target_distribution(logits_after(history), tokens, settings)
    assert written == pytest.approx(naive_target(history, params, 2), abs=1e-6)
    counts = np.zeros(VOCAB, dtype=np.int64)
    for seed in range(20_000):
        row = DrawRow(DrawSettings(params, seed=seed, num_prompt=2), tokens)
        counts[Sampler().sample(logits_after(history)[None], [row])[0].token_id] += 1
    assert_distributed(counts, written)


def test_a_greedy_distribution_is_a_point() -> None:
    row = np.array([0.0, 3.0, 3.0, 1.0], dtype=np.float32)
    settings = DrawSettings(SamplingParams(temperature=0), seed=0)
    assert target_distribution(row, np.array([0], dtype=np.int32), settings).tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize("params", [SamplingParams(temperature=0), *KINDS])
@pytest.mark.parametrize("seed", range(8))
def test_compared_draws_are_those_of_plain_decoding_token_for_token(params: SamplingParams, seed: int) -> None:
    settings = DrawSettings(params, seed=seed, num_prompt=3, num_logprobs=2)
    history = (1, 2, 3)
    plain = []
    for _ in range(4):
        known = (*history, *(draw.token_id for draw in plain))
        row = DrawRow(settings, np.array(known, dtype=np.int32))
        plain += Sampler().sample(logits_after(known)[None], [row])
    right = tuple(draw.token_id for draw in plain[:3])
    tokens = np.array(history, dtype=np.int32)
    for num_right in range(4):
        drafts = (*right[:num_right], *((token + 1) % VOCAB for token in right[num_right:]))
        draws = draw_and_compare(Sampler(), rows_after(history, drafts), settings, tokens, drafts)
        assert draws == plain[: num_right + 1]


def test_without_drafts_one_token_is_drawn() -> None:
    settings = DrawSettings(SamplingParams(temperature=0), seed=0)
    draws = draw_and_compare(Sampler(), logits_after((1,))[None], settings, np.array([1], dtype=np.int32), ())
    assert [draw.token_id for draw in draws] == [int(logits_after((1,)).argmax())]


def test_a_row_that_is_no_number_ends_the_run_with_its_error() -> None:
    settings = DrawSettings(SamplingParams(temperature=0), seed=0)
    rows = np.zeros((3, VOCAB), dtype=np.float32)
    rows[0, 4] = 1
    rows[1] = np.nan
    draws = draw_and_compare(Sampler(), rows, settings, np.array([1], dtype=np.int32), (4, 4))
    assert [draw.token_id for draw in draws] == [4, -1] and draws[1].error is not None


def test_greedy_counting_confirms_up_to_the_first_wrong_draft() -> None:
    rows = np.eye(4, dtype=np.float32)
    assert count_confirmed(rows, (0, 1, 2)) == 3
    assert count_confirmed(rows, (0, 2, 2)) == 1
    assert count_confirmed(rows, (3,)) == 0
    assert count_confirmed(rows, ()) == 0


@pytest.mark.parametrize("params", KINDS)
def test_compared_point_drafts_keep_the_joint_distribution_of_two_tokens(params: SamplingParams) -> None:
    """Over seeds: whatever is guessed, the pair of tokens that comes out is distributed as without drafts."""
    history, drafts = (4, 1, 6), (2, 5)
    tokens = np.array(history, dtype=np.int32)
    rows = rows_after(history, drafts)
    second_rows = {first: logits_after((*history, first)) for first in range(VOCAB)}
    counts = np.zeros((VOCAB, VOCAB), dtype=np.int64)
    for seed in range(NUM_SAMPLES // 4):
        settings = DrawSettings(params, seed=seed, num_prompt=2)
        draws = draw_and_compare(Sampler(), rows, settings, tokens, drafts)
        first = draws[0].token_id
        if len(draws) == 1:
            row = DrawRow(settings, np.append(tokens, np.int32(first)))
            draws += Sampler().sample(second_rows[first][None], [row])
        counts[first, draws[1].token_id] += 1
    joint = np.stack([naive_target((*history, first), params, 2) for first in range(VOCAB)])
    joint *= naive_target(history, params, 2)[:, None]
    assert_distributed(counts.ravel(), joint.ravel())


@pytest.mark.parametrize("params", KINDS)
def test_rejection_sampling_keeps_the_target_distribution(params: SamplingParams) -> None:
    """First two tokens over 100,000 runs, drafts drawn from a proposal that is another model."""
    history = (4, 1, 6)
    generator = np.random.default_rng(5)
    first_target = naive_target(history, params, 2)
    joint = np.stack([naive_target((*history, first), params, 2) for first in range(VOCAB)])
    proposal = generator.dirichlet(np.ones(VOCAB), size=2)
    numbers = generator.random((NUM_SAMPLES, 5))
    counts = np.zeros((VOCAB, VOCAB), dtype=np.int64)
    for row in numbers:
        draft = pick(proposal[0], row[0])
        target = np.stack((first_target, joint[draft]))
        verified = reject_sample(target, proposal[:1], (draft,), (row[1], row[2]))
        if verified.num_accepted:
            counts[draft, verified.token_id] += 1
        else:
            counts[verified.token_id, pick(joint[verified.token_id], row[3])] += 1
    assert_distributed(counts.ravel(), (joint * first_target[:, None]).ravel())


def test_a_draft_from_the_target_itself_always_stands() -> None:
    target = np.random.default_rng(1).dirichlet(np.ones(VOCAB), size=3)
    for number in (0.0, 0.5, 1 - 2.0**-53):
        assert reject_sample(target, target[:2], (3, 4), (number, number, number)).num_accepted == 2


def test_a_point_proposal_stands_with_the_targets_own_probability() -> None:
    target = np.array([[0.3, 0.7], [1.0, 0.0]])
    point = np.array([[1.0, 0.0]])
    stands = [reject_sample(target, point, (0,), (number, 0.5)).num_accepted for number in np.arange(0, 1, 0.001)]
    assert sum(stands) == 300


def test_a_rejected_draft_is_replaced_by_what_the_proposal_lacked() -> None:
    target = np.array([[0.0, 0.5, 0.5], [1.0, 0.0, 0.0]])
    proposal = np.array([[0.5, 0.5, 0.0]])
    assert residual(target[0], proposal[0]).tolist() == [0, 0, 1]
    assert residual(target[0], target[0]).tolist() == target[0].tolist()
    verified = reject_sample(target, proposal, (0,), (0.0, 0.9))
    assert (verified.num_accepted, verified.token_id) == (0, 2)


def test_distributions_over_another_vocabulary_are_refused() -> None:
    with pytest.raises(ConfigError, match="same vocabulary"):
        reject_sample(np.full((2, 8), 1 / 8), np.full((1, 7), 1 / 7), (0,), (0.5, 0.5))
