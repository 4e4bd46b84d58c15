"""Time and peak memory of a search for a layout (`mixed`, `smallest-within`) and of the doctor, told before they begin.

The parts of one layer stand for those of all, and a run of the recipe that a search is based on for each of its trials;
both are measured as `estimate.py` measures a run.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vivace.compress.company import MOST_BITS
from vivace.compress.containers import KERNELS
from vivace.compress.device import Device
from vivace.compress.doctor import check_windows, window_features
from vivace.compress.estimate import (
    Estimate,
    Pace,
    Work,
    foretell,
    measure_run,
    peak_resident_bytes,
    reading_s,
    resident_bytes,
)
from vivace.compress.evaluate import EvaluationSettings, make_executor
from vivace.compress.importance import input_importance
from vivace.compress.input_sets import walk_together
from vivace.compress.output import workplace_of
from vivace.compress.parts import model_parts
from vivace.compress.probe import cut_model, probe_windows
from vivace.compress.recipe import PRESETS, CalibrationSettings, Recipe
from vivace.compress.regret import LAYERS_PROBED
from vivace.compress.samples import CalibrationText
from vivace.compress.save import SENSITIVITY_SAMPLES, SENSITIVITY_TOKENS, UNSEEN_SAMPLES, MixBudget
from vivace.compress.search_progress import found_so_far, place_of_search
from vivace.compress.self_text import seconds_a_step
from vivace.compress.sensitivity import FORMATS, measure_sensitivity
from vivace.compress.smallest import MOST_TRIALS, USUAL_TRIALS
from vivace.compress.timing import TIMED_STEPS
from vivace.files.open import LoadedModel, open_model
from vivace.graph.weights import weight_shapes
from vivace.numerics.formats import num_bytes
from vivace.numerics.kv_formats import KV_FORMATS, holds
from vivace.types.weights import TensorFormat

_SMALL, _LARGE = "layers.0.attn.v", "layers.0.mlp.down"
_COMPARED = SENSITIVITY_SAMPLES * SENSITIVITY_TOKENS


@dataclass(frozen=True, slots=True)
class SearchPace:
    """What was measured of a search, in seconds.

    Attributes:
        layer_token_s: a token in a layer of the walk that looks at inputs.
        build_s: an executor of the whole model.
        step_s: one of its steps of one token.
        part_s: a part's executor and its comparison, whatever the part.
        weight_s: a weight of a layer in all formats, as they are chosen and measured.
        ends_s: embedding and head, all of it.
        wide_bytes: of all matrices in the widest of the formats that are usual.
    """

    layer_token_s: float
    build_s: float
    step_s: float
    part_s: float
    weight_s: float
    ends_s: float
    wide_bytes: int = 0

    @property
    def token_s(self) -> float:
        """A token that two executors read and that is compared: two readings, and probabilities of both."""
        return 2 * max(self.part_s - self.build_s, 0.0) / _COMPARED


def estimate_search(
    source_path: Path,
    out: Path,
    recipe: Recipe,
    budget: MixBudget,
    text: CalibrationText | None = None,
    *,
    overwrite: bool = False,
    device: Device | None = None,
) -> Estimate:
    """What `compress_file` with the same arguments will take; writes nothing.

    A search for the smallest is told with the trials that are usual, with what the most of them would take beside it,
    and without its bytes, which it is to find.

    Raises:
        ConfigError: a path or the recipe can never work.
        ModelFileError: the source is damaged.
    """
    source = open_model(source_path)
    try:
        place = place_of_search(device.name if device else "numpy", budget)
        has_parts, num_tried = found_so_far(workplace_of(out), source, recipe, place)
        pace, work = measure_run(source, out, recipe, text, overwrite=overwrite, device=device)
        search = probe_search(source, recipe)
        pace = replace(pace, seen_bytes=max(pace.seen_bytes, peak_resident_bytes()))
        looking = {} if has_parts else _looking(source, recipe, budget, search) | _lowest(pace, work)
        if budget.within is not None:
            return foretell_trials(pace, work, search, looking, num_tried)
        once = foretell(pace, replace(work, out_bytes=_mixed_bytes(source, budget, work.out_bytes)))
        return Estimate({**once.stages, **looking}, once.peak_bytes, once.tensor_bytes)
    finally:
        source.close()


def foretell_trials(
    pace: Pace, work: Work, search: SearchPace, looking: Mapping[str, float], num_tried: int = 0
) -> Estimate:
    """A search for the smallest: every trial is a run and a comparison on unseen windows; text and check come once.

    What `num_tried` trials measured is known from a search that was stopped; the best may have to be made again.

    What holds most: the best so far and the one at work in memory, one of them packed, beside the source's executor;
    layouts on the way may be wider than the one that is found, up to about eight bits a weight.
    """
    once = foretell(pace, work)
    largest = max(work.out_bytes, search.wide_bytes)
    usual, most = (max(count - num_tried, 1) for count in (USUAL_TRIALS, MOST_TRIALS))
    trials = {stage: usual * once.stages[stage] for stage in ("walk", "rounding", "writing")}
    windows = work.tokens // max(work.samples, 1) * UNSEEN_SAMPLES
    comparison = 2 * search.build_s + windows * search.token_s
    compared = (usual + 1) * comparison
    trial_s = comparison + sum(once.stages[stage] for stage in trials)
    unseen_s = once.stages["text"] * min(1.0, UNSEEN_SAMPLES / max(work.samples, 1))
    stages = {**once.stages, **trials, **looking, "comparing": compared, "unseen text": unseen_s}
    held = work.source_bytes + 3 * largest + pace.executor_bytes
    peak = max(once.peak_bytes + 2 * largest - work.out_bytes, pace.now_bytes + held)
    return Estimate(stages, peak, None, more_s=(most - usual) * trial_s)


def probe_search(source: LoadedModel, recipe: Recipe) -> SearchPace:
    """Look at a layer's inputs; measure a small and a large part of a layer, embedding and head, as a search does."""
    spec, weights = source.spec, source.weights
    cut_spec, cut, _ = cut_model(spec, weights, recipe, [0], min(spec.vocab_size, 256))
    windows = [window % cut_spec.vocab_size for window in probe_windows(spec, recipe.calibration)]
    started = time.perf_counter()
    importance = input_importance(cut_spec, cut, windows)
    looked = time.perf_counter()
    executor = make_executor(source, EvaluationSettings(), SENSITIVITY_TOKENS)
    built = time.perf_counter()
    step_s = seconds_a_step(executor, CalibrationSettings(samples=1, tokens=64))
    del executor
    parts = model_parts(spec)
    bands = [name for name in parts if not name.startswith("layers.")]
    few = {name: parts[name] for name in (_SMALL, _LARGE, *bands)}
    random = np.random.default_rng(0)
    shown = random.integers(spec.vocab_size, size=(SENSITIVITY_SAMPLES, min(SENSITIVITY_TOKENS, spec.context_length)))
    times: list[float] = []
    measure_sensitivity(
        spec,
        weights,
        list(shown.astype(np.int32)),
        lambda done, total, what: times.append(time.perf_counter()),
        importance=importance,
        parts=few,
    )
    took = dict(zip(few, np.diff(times).tolist(), strict=True))
    shapes = weight_shapes(spec)
    small, large = (parts[part].num_weights(shapes) for part in (_SMALL, _LARGE))
    weight_s = max(took[_LARGE] - took[_SMALL], 0.0) / max(large - small, 1)
    return SearchPace(
        layer_token_s=(looked - started) / sum(map(len, windows)),
        build_s=built - looked,
        step_s=step_s,
        part_s=max(took[_SMALL] - small * weight_s, 0.0),
        weight_s=weight_s,
        ends_s=sum(seconds for part, seconds in took.items() if not part.startswith("layers.")),
        wide_bytes=sum(num_bytes(TensorFormat.Q8_0, shape) for shape in shapes.values() if shape[-1] % 32 == 0),
    )


def _looking(source: LoadedModel, recipe: Recipe, budget: MixBudget, search: SearchPace) -> dict[str, float]:
    """Seconds of what a search looks at before it compresses: inputs, parts, keys and values, steps of formats."""
    spec, settings = source.spec, recipe.calibration
    shapes, parts = weight_shapes(spec), model_parts(spec)
    inner = [part for name, part in parts.items() if name.startswith("layers.")]
    in_layers = sum(part.num_weights(shapes) for part in inner)
    tokens = settings.samples * min(settings.tokens, spec.context_length)
    kv_formats = [row for row in KV_FORMATS.values() if holds(row, spec.attention.head_dim)]
    builds = 2 * len({KERNELS[format] for format in FORMATS}) - 1  # of `time_formats`
    return {
        "inputs": tokens * spec.num_layers * search.layer_token_s,
        "parts": search.part_s * (len(inner) + 2 + MOST_BITS) + search.weight_s * in_layers + search.ends_s,
        "keys and values": search.part_s * (len(kv_formats) + 1) if budget.kv_tokens is not None else 0.0,
        "steps": builds * (search.build_s + TIMED_STEPS * search.step_s) if budget.most_ms is not None else 0.0,
    }


def _lowest(pace: Pace, work: Work) -> dict[str, float]:
    """Seconds of rounding all to the lowest format first, which parts are then measured in; it is not kept."""
    once = foretell(pace, work)
    return {"lowest format": once.stages["walk"] + once.stages["rounding"]}


def _mixed_bytes(source: LoadedModel, budget: MixBudget, otherwise: int) -> int:
    """About what a mix comes to: its budget, and what is no matrix; else as the base recipe has it."""
    if budget.bits_per_weight is None:
        return otherwise
    shapes = weight_shapes(source.spec)
    matrices = sum(math.prod(shape) for shape in shapes.values() if len(shape) > 1)
    kept = sum(source.weights.info(name).num_bytes for name, shape in shapes.items() if len(shape) == 1)
    return int(budget.bits_per_weight * matrices / 8) + kept


def estimate_doctor(
    source_path: Path, text: CalibrationText, in_use: CalibrationText, settings: CalibrationSettings
) -> Estimate:
    """What the doctor takes with so many windows of either text.

    Three layers are done as all will be: one looked at and gone through, one probed for regret as well, one looked at
    alone, as the last is.

    Raises:
        ConfigError: a text cannot be read, the windows are too few, or the model has no vocabulary.
        ModelFileError: the model is damaged.
    """
    check_windows(settings.samples)
    now = resident_bytes()
    source = open_model(source_path)
    try:
        spec = source.spec
        texts_s = sum(reading_s(source, settings, of) for of in (text, in_use))
        half = settings.samples // 2
        one = PRESETS["int4-fast"]
        cut_spec, cut, _ = cut_model(spec, source.weights, one, [0, 0, 0], min(spec.vocab_size, 256))
        size = min(settings.tokens, spec.context_length)
        windows = list(np.random.default_rng(0).integers(cut_spec.vocab_size, size=(half, size)).astype(np.int32))
        times: list[float] = []
        walk_together(
            cut_spec,
            cut,
            (windows, windows, windows),
            lambda *_: times.append(time.perf_counter()),
            probed=frozenset({1}),
        )
        _, walked_s, probed_s, looked_s = np.diff(times).tolist()  # what comes before the layers first
        walked = time.perf_counter()
        window_features(windows, source.weights.dequantize("embed.weight"))
        features_s = 2 * (time.perf_counter() - walked)
        num_probed = min(LAYERS_PROBED, spec.num_layers)
        stages = {
            "text": texts_s,
            "probes": num_probed * probed_s,
            "walk": max((spec.num_layers - num_probed) * walked_s - (walked_s - looked_s), 0.0),
            "windows": features_s,
        }
        source_bytes = sum(source.weights.info(name).num_bytes for name in source.weights.names())
        embedding = 8 * spec.vocab_size * spec.hidden_size  # its values, and as unit vectors
        stream = 3 * 4 * half * size * spec.hidden_size
        peak = max(peak_resident_bytes(), now + source_bytes + stream + embedding)
        return Estimate(stages, peak, None)
    finally:
        source.close()
