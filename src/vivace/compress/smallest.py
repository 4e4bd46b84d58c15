"""The smallest file that keeps a quality: a search over mixed layouts, each trial compressed whole and measured.

The sum of the parts' losses says where to begin; what a trial measures corrects it, so that few trials are needed. The
figure that decides is measured on windows that no method was calibrated on, and once more on the file.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from vivace.compress.allocate import Allocation
from vivace.compress.evaluate import Evaluation, EvaluationSettings, evaluate, make_executor
from vivace.compress.pipeline import CompressedModel
from vivace.compress.progress import Report
from vivace.compress.recipe import Recipe
from vivace.compress.search_progress import TRIAL, Recall, find_anew
from vivace.compress.sensitivity import PartSensitivity, count_weights, mixed_recipe
from vivace.execute.native import NativeExecutor
from vivace.execute.score import Tokens
from vivace.files.open import LoadedModel
from vivace.graph.build import build_graph
from vivace.types.errors import ConfigError, ModelFileError
from vivace.types.kv import DEFAULT_KV_FORMAT
from vivace.types.model import ModelSpec
from vivace.types.run_settings import choose_inputs
from vivace.types.step import BLOCK_SIZE

PREFIX = "smallest-within:"
MOST_TRIALS = 5
USUAL_TRIALS = 4  # what a search is foretold with: three to five, as its figures stray from the curve of the parts' sum
_NEAR = 0.05  # bits a weight between what holds and what does not: near enough
_FACTORS = (0.05, 20.0)  # of what is measured over the parts' sum: a figure that strays further says nothing
_BOUND = re.compile(r"ppl\+(?P<percent>[0-9.]+)%|kl:(?P<kl>[0-9.]+)")


@dataclass(frozen=True, slots=True)
class QualityBound:
    """The most that may be lost: `figure` is "ppl" (ratio of perplexities) or "kl" (mean divergence in nats)."""

    figure: str
    limit: float

    def measured(self, figures: Evaluation) -> float:
        """The bound's own figure among all."""
        value = figures.ppl_ratio if self.figure == "ppl" else figures.kld
        assert value is not None
        return value

    @property
    def nats(self) -> float:
        """About what divergence the bound stands for: perplexity rises by about its exponential."""
        return self._in_nats(self.limit)

    def nats_of(self, figures: Evaluation) -> float:
        """What was measured, on the scale of `nats`."""
        return self._in_nats(self.measured(figures))

    def _in_nats(self, value: float) -> float:
        return math.log(value) if self.figure == "ppl" else value


@dataclass(frozen=True, slots=True)
class Trial:
    """One layout that was compressed and measured."""

    bits_per_weight: float
    measured: float
    holds: bool


def parse_bound(name: str) -> QualityBound | None:
    """The bound of a recipe name such as `smallest-within:ppl+1%` or `smallest-within:kl:0.02`; None: no such name.

    Raises:
        ConfigError: it begins like one, and says no quality.
    """
    if not name.startswith(PREFIX):
        return None
    found = _BOUND.fullmatch(name.removeprefix(PREFIX))
    try:
        bound = None if found is None else _read_bound(found["percent"], found["kl"])
    except ValueError:
        bound = None
    if bound is None or not bound.nats > 0:
        raise ConfigError(
            f"{name!r} names no quality.", f"Write {PREFIX}ppl+1% (perplexity) or {PREFIX}kl:0.02 (nats)."
        )
    return bound


def _read_bound(percent: str | None, kl: str | None) -> QualityBound:
    if percent is not None:
        return QualityBound("ppl", 1 + float(percent) / 100)
    return QualityBound("kl", float(kl or ""))


@dataclass(frozen=True, slots=True)
class LayoutSearch:
    """Mixed layouts of one model by their budget: what it is, whose methods are used, and what its parts suffer."""

    spec: ModelSpec
    base: Recipe
    parts: Sequence[PartSensitivity]

    def layout(self, bits: float) -> tuple[Recipe, Allocation]:
        """The layout that keeps most within so many bits a weight."""
        return mixed_recipe(self.spec, self.parts, bits, self.base)

    def span(self) -> tuple[float, float]:
        """Bits a weight of the smallest and the largest layout."""
        weights = count_weights(self.spec, self.parts)
        sizes = [[option.num_bytes for option in part.bearable] for part in self.parts]
        low, high = (8 * sum(pick(size) for size in sizes) / weights for pick in (min, max))
        return math.ceil(1000 * low) / 1000, math.ceil(1000 * high) / 1000

    def guess(self, nats: float, low: float, high: float) -> float:
        """The fewest bits at which the parts' losses sum to no more than `nats`, by bisection over layouts."""
        if self.layout(low)[1].loss <= nats:
            return low
        while high - low > _NEAR / 4:
            middle = (low + high) / 2
            if self.layout(middle)[1].loss <= nats:
                high = middle
            else:
                low = middle
        return high


def find_smallest(
    search: LayoutSearch,
    bound: QualityBound,
    compress: Callable[[Recipe], CompressedModel],
    measure: Callable[[CompressedModel], Evaluation],
    report: Report = lambda done, total, what: None,
    *,
    recall: Recall = find_anew,
) -> tuple[CompressedModel, list[Trial]]:
    """Compress at one budget after the other until the smallest that holds is known to 0.05 bits, or five are tried.

    Args:
        search: the layouts.
        bound: what is to hold.
        compress: runs a recipe.
        measure: a compressed model beside its source, on text that no method has seen.
        report: told how far it is.
        recall: gives what a trial has measured before this search was stopped.

    Raises:
        ConfigError: not even the largest layout holds; the message says what it reaches.
    """
    lowest, highest = search.span()
    below, above = lowest, highest  # what is known not to hold, and what does (or may)
    bits, best, trials = search.guess(bound.nats, lowest, highest), None, list[Trial]()
    model: CompressedModel | None = None
    while len(trials) < MOST_TRIALS:
        report(len(trials), MOST_TRIALS, f"trying {bits:.2f} bits a weight")
        recipe, allocation = search.layout(bits)
        figures, made = _tried(partial(compress, recipe), measure, partial(recall, f"{TRIAL}{bits!r}", Evaluation))
        trials.append(Trial(bits, bound.measured(figures), bound.measured(figures) <= bound.limit))
        if trials[-1].holds:
            best, model, above = recipe, made, bits
        elif bits >= highest:
            raise ConfigError(
                f"Not even {bits:.2f} bits a weight keep to {bound.limit:g}: they reach {trials[-1].measured:.4g}.",
                "Allow a larger loss.",
            )
        else:
            below = bits
        if best is not None and above - below <= _NEAR + 1e-9:
            break
        factor = float(
            np.clip(bound.nats_of(figures) / max(allocation.loss, 1e-12), *_FACTORS)
        )  # so far is the sum off
        bits = _next_bits(search.guess(bound.nats / factor, below, above), below, above, holds=best is not None)
        if best is None and len(trials) == MOST_TRIALS - 1:
            bits = highest
    report(len(trials), len(trials), "the smallest that holds is found")
    assert best is not None
    return model or compress(best), trials


def _tried(
    compress: Callable[[], CompressedModel],
    measure: Callable[[CompressedModel], Evaluation],
    recall: Callable[[Callable[[], Evaluation]], Evaluation],
) -> tuple[Evaluation, CompressedModel | None]:
    """What a layout measures, and the model if it was made for that now."""
    made: list[CompressedModel] = []

    def find() -> Evaluation:
        made.append(compress())
        return measure(made[0])

    figures = recall(find)
    return figures, made[0] if made else None


def _next_bits(guess: float, below: float, above: float, *, holds: bool) -> float:
    """What to try between a budget that fails and one that holds: just over the guess, so that it holds, and then a
    step under that, so that what fails ends the search."""
    bits = min(guess + _NEAR / 4, above - _NEAR) if holds else guess + _NEAR / 2
    return bits if below + _NEAR / 4 < bits < above else (below + above) / 2


def measure(source: LoadedModel, model: CompressedModel, windows: Sequence[Tokens]) -> Evaluation:
    """A compressed model in memory beside its source, both run as they ask to be."""
    asked, longest = model.run_settings, max(map(len, windows))
    bits, inputs = choose_inputs(asked, None)
    candidate = NativeExecutor(
        build_graph(model.spec),
        model.weights,
        num_blocks=-(-longest // BLOCK_SIZE),
        activation_bits=bits,
        kv_format=asked.kv_format or DEFAULT_KV_FORMAT,
        inputs=inputs,
    )
    reference = make_executor(source, EvaluationSettings(), longest)
    return evaluate(candidate, windows, model.weights.num_bytes(), reference=reference)


def hold_file_to(bound: QualityBound, source: LoadedModel, written: LoadedModel, windows: Sequence[Tokens]) -> float:
    """The bound's figure, measured on a file that was just written.

    Raises:
        ModelFileError: the file does not keep to it.
    """
    longest = max(map(len, windows))
    candidate, reference = (make_executor(model, EvaluationSettings(), longest) for model in (written, source))
    found = bound.measured(evaluate(candidate, windows, 0, reference=reference))
    if not found <= bound.limit:
        raise ModelFileError(f"The file reaches {found:.4g} where {bound.limit:g} was to hold.", "Try again.")
    return found
