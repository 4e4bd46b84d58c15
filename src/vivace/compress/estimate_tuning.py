"""What tuning scales end to end will take: one step on a cut model, timed by segments and scaled to the whole."""

import math
from collections import Counter
from dataclasses import replace

from vivace.compress.device import Device
from vivace.compress.layout import Layout, plan_layout
from vivace.compress.pipeline import compress_weights
from vivace.compress.probe import cut_model, layer_kinds, probe_windows
from vivace.compress.recipe import Recipe
from vivace.compress.tuning import CHECKS, HELD_OUT, TuningTask, tuning_settings
from vivace.graph.build import build_graph
from vivace.types.model import ModelSpec
from vivace.types.weights import WeightSource

_HEAD_WEIGHTS = 1 << 23  # of the slice of embedding and head
_COMPARED_ROWS = 256  # of logits, as `torch_gradients` has them
_COMPARED_COPIES = 8  # logits and probabilities of both, their differences, the gradient
_TAPE = 4  # copies of a layer's buffers and matrices: the values, what the tape keeps, gradients
_SCORES = 5  # copies of the scores of attention, likewise
_STATES = 6  # of what is tuned: start, change, gradient, two moments, the best so far


def probe_tuning(
    spec: ModelSpec, weights: WeightSource, recipe: Recipe, layout: Layout, device: Device
) -> tuple[float, int]:
    """Seconds that tuning takes if nothing ends it early, and bytes beside the tensors; zeros when nothing is tuned.

    Args:
        spec: what the model is, before a rotation.
        weights: its tensors.
        recipe: what is to be done; its tuning can be followed.
        layout: the recipe over the model, after a rotation.
        device: where it will run.
    """
    if recipe.tuning is None:
        return 0.0, 0
    from vivace.compress.torch_training import Training

    kinds = layer_kinds(layout, spec.num_layers)
    chosen = [kinds.index(kind) for kind in dict.fromkeys(kinds)]
    rows = min(spec.vocab_size, max(_HEAD_WEIGHTS // spec.hidden_size, 256))
    cut_spec, cut, rules = cut_model(spec, weights, _plain(recipe), chosen, rows)
    drawn = tuning_settings(recipe.calibration, recipe.tuning)
    windows = [window % rows for window in probe_windows(spec, drawn)]
    made = compress_weights(cut_spec, cut, rules).weights
    task = TuningTask(cut_spec, cut, made, plan_layout(cut_spec, cut, rules), recipe.tuning, [*windows, windows[0]])
    training = Training(task, "cuda" if device.name.endswith("cuda") else "cpu")
    probed, counts = sum(map(len, windows)), Counter(kinds)
    learn, read = (
        (sum(counts[kinds[layer]] * seconds[n + 1] for n, layer in enumerate(chosen)), seconds[len(chosen) + 1])
        for seconds in training.timed()
    )
    share = spec.vocab_size / rows
    size = min(recipe.calibration.tokens, spec.context_length)
    held = max(recipe.tuning.samples // HELD_OUT, 1)
    learnt = (recipe.tuning.samples - held) * recipe.tuning.epochs
    a_step, a_reading = learn[0] + learn[1] * share, read[0] + read[1] * share
    seconds = learnt * a_step + (CHECKS + 1) * held * a_reading + recipe.tuning.samples * read[0]
    return seconds * size / probed, _extra_bytes(spec, recipe, layout, probed)


def _plain(recipe: Recipe) -> Recipe:
    """The same formats, rounded without calibration: what a step costs does not depend on the codes."""
    return replace(
        recipe,
        folds=(),
        rounding="nearest",
        importance=False,
        bias_correction=False,
        drift_correction=False,
        tuning=None,
        rules=tuple(replace(rule, rounding=None) for rule in recipe.rules),
    )


def _extra_bytes(spec: ModelSpec, recipe: Recipe, layout: Layout, tokens: int) -> int:
    """Codes in bytes, what is tuned with its moments, embedding and heads in float32, the aim, and one layer's tape."""
    assert recipe.tuning is not None
    graph = build_graph(spec)
    codes = states = layer = 0
    for name, plan in layout.items():
        size = math.prod(plan.shape)
        if name.startswith("layers.0."):
            layer += size
        if plan.scheme is not None and not plan.bands and name.startswith("layers."):
            codes += size
            states += size // (plan.scheme.group_size or plan.shape[-1])
    widest = sum(width for name, width in graph.widths.items() if name.startswith("layers.0."))
    size = min(recipe.calibration.tokens, spec.context_length)
    ends = 2 * spec.vocab_size * spec.hidden_size + _COMPARED_COPIES * _COMPARED_ROWS * spec.vocab_size
    aim = recipe.tuning.samples * size * spec.hidden_size
    stream = (spec.num_layers + 1) * tokens * spec.hidden_size
    scores = _SCORES * spec.attention.num_heads * tokens * size
    return codes + 4 * (_STATES * states + ends + aim + stream + scores + _TAPE * (layer + tokens * widest))
