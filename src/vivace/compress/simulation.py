"""What a recipe would cost with activations that no kernel runs: both halves simulated, nothing written.

Weights are those a file would hold; activations pass through the recipe's scheme on the reference executor, in
float32. Static ranges are observed on the calibration windows, with the compressed weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from vivace.compress.activation_schemes import DEPLOYED
from vivace.compress.activations import simulate
from vivace.compress.evaluate import Evaluation, EvaluationSettings, evaluate, read_windows
from vivace.compress.input_ranges import find_ranges, search_clips
from vivace.compress.pipeline import compress_weights
from vivace.compress.progress import Report
from vivace.compress.recipe import Recipe
from vivace.compress.samples import CalibrationText, draw_samples
from vivace.execute.reference import ReferenceExecutor
from vivace.files.open import open_model
from vivace.graph.build import build_graph
from vivace.text.build import build_tokenizer
from vivace.types.errors import ConfigError
from vivace.types.step import BLOCK_SIZE, Executor


@dataclass(frozen=True, slots=True)
class Simulation:
    """Figures beside the source in float32: of the weights alone, and with activations in `scheme` as well.

    `clips` are those that were searched for, by buffer; empty where the recipe asks for none.
    """

    scheme: str
    weights: Evaluation
    whole: Evaluation
    clips: Mapping[str, float]


def simulate_file(
    source_path: Path,
    recipe: Recipe,
    text: Path,
    settings: EvaluationSettings,
    calibration: CalibrationText | None = None,
    *,
    report: Report = lambda done, total, what: None,
) -> Simulation:
    """Compress in memory and read a text with quantised activations.

    Args:
        source_path: a .gguf file or a Hugging Face folder.
        recipe: its activations are simulated; those of the kernel when it names none.
        text: UTF-8 text to evaluate on.
        settings: how much of it.
        calibration: text for recipes that calibrate, and for static ranges.
        report: told how far it is.

    Raises:
        ConfigError: the text or the recipe can never work.
    """
    scheme = recipe.activations or DEPLOYED
    source = open_model(source_path)
    try:
        if source.vocabulary is None:
            raise ConfigError(f"{source.path} has no vocabulary to read text with.", "Use a whole model file.")
        windows = read_windows(source, text, settings)
        recipe = replace(recipe, activations=scheme)
        samples = []
        if recipe.reads_text:
            tokenizer = build_tokenizer(source.vocabulary)
            samples = draw_samples(source, tokenizer, recipe.calibration, calibration, report)
        model = compress_weights(source.spec, source.weights, recipe, samples, report)
        graph = build_graph(model.spec)
        ranges = find_ranges(graph, model.weights, samples, scheme, report) if scheme.mode == "static" else None
        clips = search_clips(graph, model.weights, samples, scheme, report) if recipe.clip_activations else {}
        blocks = -(-len(windows[0]) // BLOCK_SIZE)
        size = model.weights.num_bytes()
        figures = []
        executors: tuple[Executor, ...] = (
            ReferenceExecutor(graph, model.weights, num_blocks=blocks),
            simulate(graph, model.weights, scheme, len(windows[0]), ranges, kv_format=recipe.kv_format, clips=clips),
        )
        for executor in executors:
            reference = ReferenceExecutor(build_graph(source.spec), source.weights, num_blocks=blocks)
            figures.append(evaluate(executor, windows, size, reference=reference, report=report))
        return Simulation(scheme.name, figures[0], figures[1], clips)
    finally:
        source.close()
