"""The calibration doctor: does calibration text look like what the model will be used on (gotcha 9).

What counts is what a set costs: matrices rounded as a run would, and judged on traffic (`regret.py`). Kinds of text
that are missing are named whatever they cost. The tokens of traffic that calibration has, ranges of the inputs of
linears and a two-sample test on windows say why, and are no verdict: a set can look unlike traffic and cost nothing.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vivace.compress.input_sets import walk_together
from vivace.compress.progress import Report
from vivace.compress.schemes import Floats
from vivace.compress.text_kinds import kind_of
from vivace.execute.score import Tokens
from vivace.text.tokenizer import Tokenizer
from vivace.types.errors import ConfigError
from vivace.types.model import ModelSpec
from vivace.types.weights import WeightSource

PERMUTATIONS = 500
MISSING_SHARE, MISSED_FROM = 0.25, 0.08  # a kind is missing with under a quarter of a share that is worth 8 %
LEAST_COVERAGE = 0.75  # of what half of the reference covers of the other half; under it, a reason for regret
LEAST_OVERLAP = 0.94  # of ranges, over the overlap of the halves; likewise
LARGEST_REGRET = 0.6  # between what good sets and harmful ones were measured to have (docs/compression.md)
_SIGNIFICANT = 0.01
_FEWEST_WINDOWS = 4


@dataclass(frozen=True, slots=True)
class KindShare:
    """How much of each set is of one kind of text; `missing` from the calibration set."""

    kind: str
    calibration: float
    reference: float

    @property
    def missing(self) -> bool:
        """Whether the reference has it and the calibration set has next to none."""
        return self.reference >= MISSED_FROM and self.calibration < MISSING_SHARE * self.reference


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What the doctor found.

    Attributes:
        kinds: shares of kinds of text, the reference's largest first.
        token_coverage: share of the reference's tokens, by how often they occur, that calibration has at all, over the
            share that as many windows of the reference itself cover: 1 is as good as traffic.
        range_overlap: mean over the channels of all linear inputs of the smaller range over the larger, relative to
            that of the halves of the reference with each other: 1 is as good as traffic.
        narrow_channels: share of channels that the reference drives more than 1.5 times as far as calibration.
        distance: squared maximum mean discrepancy of windows; `p_value` of a permutation test that there is none.
        regret: how much more error on traffic is left by rounding with this set than by rounding with as much traffic,
            0.1 for a tenth more; `regret_least` for the better of two ways to halve the traffic.
        complaints: sentences about what is wrong, each naming what is missing; empty for a good set.
        shares: what share of draws each kind that calibration has should get to look like the reference.
    """

    kinds: tuple[KindShare, ...]
    token_coverage: float
    range_overlap: float
    narrow_channels: float
    distance: float
    p_value: float
    regret: float
    regret_least: float
    complaints: tuple[str, ...]
    shares: dict[str, float]

    @property
    def is_good(self) -> bool:
        """Whether there is nothing to complain about."""
        return not self.complaints


def diagnose(
    spec: ModelSpec,
    weights: WeightSource,
    tokenizer: Tokenizer,
    *,
    calibration: Sequence[Tokens],
    reference: Sequence[Tokens],
    report: Report = lambda done, total, what: None,
) -> Diagnosis:
    """Compare calibration windows with windows of what the model is used on.

    Args:
        spec: what the model is.
        weights: its tensors; the model is run on both sets once.
        tokenizer: the model's.
        calibration: windows that it would be calibrated on.
        reference: windows of live traffic, or of text like it.
        report: told how far it is.

    Raises:
        ConfigError: there are too few windows for a test.
    """
    check_windows(min(len(calibration), len(reference)))
    kinds = _kinds(calibration, reference, tokenizer)
    coverage = relative_coverage(calibration, reference)
    half = min(len(calibration), len(reference) // 2)
    sets = (calibration[:half], reference[: 2 * half : 2], reference[1 : 2 * half : 2])
    inputs = walk_together(spec, weights, sets, report)
    embedding = weights.dequantize("embed.weight")
    distance, p_value = two_sample_test(window_features(calibration, embedding), window_features(reference, embedding))
    found = Diagnosis(
        kinds=kinds,
        token_coverage=coverage,
        range_overlap=inputs.overlap,
        narrow_channels=inputs.narrow,
        distance=distance,
        p_value=p_value,
        regret=inputs.regret.mean,
        regret_least=inputs.regret.least,
        complaints=(),
        shares=_shares(kinds),
    )
    return replace(found, complaints=tuple(_complaints(found)))


def check_windows(count: int) -> None:
    """Refuse fewer windows of a text than a test can be made of.

    Raises:
        ConfigError: there are too few.
    """
    if count < _FEWEST_WINDOWS:
        raise ConfigError(
            f"The doctor needs at least {_FEWEST_WINDOWS} windows of either text, not {count}.",
            "Give more text, or ask for more or shorter windows (--samples, --tokens).",
        )


def token_coverage(calibration: Sequence[Tokens], reference: Sequence[Tokens]) -> float:
    """Share of the reference's tokens, by how often they occur, whose kind of token calibration has seen."""
    seen = np.unique(np.concatenate(list(calibration)))
    return float(np.isin(np.concatenate(list(reference)), seen).mean())


def relative_coverage(calibration: Sequence[Tokens], reference: Sequence[Tokens]) -> float:
    """Coverage of one half of the reference by as much calibration, over its coverage by the other half."""
    asked, other = reference[::2], reference[1::2]
    return token_coverage(calibration[: len(other)], asked) / max(token_coverage(other, asked), 1e-9)


def two_sample_test(left: Floats, right: Floats, seed: int = 0) -> tuple[float, float]:
    """Whether two sets of points come from one distribution: squared MMD and the p-value of a permutation test.

    A Gaussian kernel as wide as the median distance (Gretton et al., 2012, "A kernel two-sample test", sections 2, 8).

    Args:
        left: float32 (n, features).
        right: float32 (m, features).
        seed: of the permutations.
    """
    points = np.concatenate([left, right]).astype(np.float64)
    squares = (points * points).sum(axis=1)
    distances = np.maximum(squares[:, None] + squares[None, :] - 2 * points @ points.T, 0.0)
    width = float(np.median(distances[np.triu_indices(len(points), 1)])) or 1.0
    kernel = np.exp(-distances / width)
    np.fill_diagonal(kernel, 0.0)
    sides = np.arange(len(points)) < len(left)
    found = _discrepancy(kernel, sides)
    generator = np.random.default_rng(seed)
    as_far = sum(_discrepancy(kernel, generator.permutation(sides)) >= found for _ in range(PERMUTATIONS))
    return found, (as_far + 1) / (PERMUTATIONS + 1)


def _discrepancy(kernel: NDArray[np.float64], sides: NDArray[np.bool_]) -> float:
    """Unbiased squared MMD; the diagonal of the kernel is 0."""
    n, m = int(sides.sum()), int((~sides).sum())
    weights = sides / (n * (n - 1))
    others = ~sides / (m * (m - 1))
    cross = (sides / n) @ kernel @ (~sides / m)
    return float(sides @ kernel @ weights + ~sides @ kernel @ others - 2 * cross)


def window_features(windows: Sequence[Tokens], embedding: Floats) -> Floats:
    """A window as the mean of its tokens' embeddings, each of unit length."""
    rows = embedding / np.maximum(np.linalg.norm(embedding, axis=1, keepdims=True), 1e-6)
    return np.stack([rows[window].mean(axis=0) for window in windows])


def _kinds(calibration: Sequence[Tokens], reference: Sequence[Tokens], tokenizer: Tokenizer) -> tuple[KindShare, ...]:
    counts = [
        Counter(kind_of(tokenizer.decode(window.tolist())) for window in windows)
        for windows in (calibration, reference)
    ]
    names = sorted(counts[0] | counts[1], key=lambda name: -counts[1][name])
    own, other = len(calibration), len(reference)
    return tuple(KindShare(name, counts[0][name] / own, counts[1][name] / other) for name in names)


def _complaints(found: Diagnosis) -> list[str]:
    sentences = [
        f"{kind.kind} is {kind.reference:.0%} of what the model is used on and {kind.calibration:.0%} of calibration"
        for kind in found.kinds
        if kind.missing and found.p_value <= _SIGNIFICANT  # else it comes by chance among so few windows
    ]
    if found.regret_least <= LARGEST_REGRET:
        return sentences
    sentences.append(
        f"matrices rounded with it err {found.regret:.0%} more on traffic than with as much traffic "
        f"(at most {LARGEST_REGRET:.0%})"
    )
    if found.token_coverage < LEAST_COVERAGE:
        sentences.append(f"it covers the tokens of traffic {found.token_coverage:.0%} as well as traffic itself does")
    if found.range_overlap < LEAST_OVERLAP:
        sentences.append(f"its ranges of activations overlap {found.range_overlap:.0%} as well as traffic's own")
    return sentences


def _shares(kinds: Sequence[KindShare]) -> dict[str, float]:
    """The reference's shares among the kinds that calibration has."""
    wanted = {kind.kind: kind.reference for kind in kinds if kind.calibration > 0 and kind.reference > 0}
    total = sum(wanted.values())
    return {name: share / total for name, share in wanted.items()} if total else {}
