"""The quality report: everything that is measured of a model, beside a reference if there is one.

Owns the order of measurements and which are done; what each does is in its own file.
"""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from vivace.compress.evaluate import (
    Evaluation,
    EvaluationSettings,
    TokenColumns,
    make_executor,
    read_columns,
    read_windows,
    summarise,
)
from vivace.compress.progress import Report as Progress
from vivace.compress.recipe import CalibrationSettings
from vivace.compress.self_text import blocks_needed, write_samples
from vivace.engine.build import EngineConfig, build_service
from vivace.engine.precision import check_precision
from vivace.evaluate.generation import PROMPTS, Answers, GenerationComparison, compare_generation, write_answers
from vivace.evaluate.items import Choice, Item, LastWord, Sum, read_tasks
from vivace.evaluate.levels import BandFigures, levelled, read_levels
from vivace.evaluate.paired import PairedTest, compare_answers, wilson_interval
from vivace.evaluate.tasks import MOST_TOKENS, Subject, answer_items
from vivace.execute.native import NativeExecutor
from vivace.execute.score import Tokens
from vivace.files.open import LoadedModel, open_model
from vivace.graph.build import build_graph
from vivace.text.build import build_tokenizer
from vivace.types.errors import ConfigError
from vivace.types.run_settings import EXACT_BITS, FILE_WEIGHTS

PARTS = ("text", "tasks", "generation", "speed")
_SELF_TEXT = CalibrationSettings(samples=4, tokens=256, seed=11)


@dataclass(frozen=True, slots=True)
class ReportSettings:
    """What is measured and how long it may take.

    Attributes:
        text: how text is read.
        parts: names of PARTS.
        tasks: a folder of questions; the built-in ones alone without it.
        task_items: most questions of one task; a tenth of them of tasks whose answers are written out.
        answers: prompts that are answered, and most tokens of an answer.
        speed_tokens: tokens read and written where speed is measured.
        precision: how much of the model's nested weights is read, in words of `--precision`; the reference reads all.
        levels: whether every level is read as well, by bands of positions.
        weights: how the model's linears run, a name of WEIGHT_FORMATS; the reference's run in its own codes.
    """

    text: EvaluationSettings = field(default_factory=EvaluationSettings)
    parts: tuple[str, ...] = PARTS
    tasks: Path | None = None
    task_items: int = 200
    answers: tuple[int, int] = (len(PROMPTS), 96)
    speed_tokens: tuple[int, int] = (256, 48)
    precision: str = "off"
    levels: bool = False
    weights: str = FILE_WEIGHTS


@dataclass(frozen=True, slots=True)
class TaskFigures:
    """One task: accuracy with its 95 % interval, and the paired test against the reference."""

    num_items: int
    accuracy: float
    low: float
    high: float
    paired: PairedTest | None


@dataclass(frozen=True, slots=True)
class SpeedFigures:
    """Tokens a second that one sequence reads and writes, and the peak memory of the process."""

    prompt: float
    decode: float
    memory_bytes: int


@dataclass(frozen=True, slots=True, eq=False)
class QualityReport:
    """All that was measured; a part that was left out is None or empty.

    `columns` and `samples` are for people: they are in the HTML, not in the JSON.
    """

    model: str
    reference: str | None
    text_source: str
    figures: Evaluation | None
    columns: TokenColumns | None
    tasks: dict[str, TaskFigures]
    generation: GenerationComparison | None
    samples: tuple[tuple[str, str, str | None], ...]
    speed: dict[str, SpeedFigures]
    levels: tuple[BandFigures, ...]
    seconds: float

    def as_dict(self) -> dict[str, object]:
        """The figures of the text at the top, as ever; the other parts under their names."""
        flat = {} if self.figures is None else dict(self.figures.as_dict())
        return flat | {
            "model": self.model,
            "reference": self.reference,
            "text": self.text_source,
            "tasks": {name: asdict(task) for name, task in self.tasks.items()},
            "task_recovery": self.task_recovery,
            "generation": None if self.generation is None else asdict(self.generation),
            "speed": {name: asdict(speed) for name, speed in self.speed.items()},
            "levels": [asdict(band) for band in self.levels],
            "seconds": self.seconds,
        }

    @property
    def task_recovery(self) -> float | None:
        """Right answers over those of the reference, all tasks together; None without a reference or tasks."""
        paired = [task.paired for task in self.tasks.values() if task.paired is not None]
        other = sum(test.reference_accuracy * test.num_items for test in paired)
        return sum(test.accuracy * test.num_items for test in paired) / other if other else None


def make_report(
    model_path: Path, reference_path: Path | None, text: Path | None, settings: ReportSettings, progress: Progress
) -> QualityReport:
    """Measure a model file or folder, beside a reference if there is one.

    Args:
        model_path: the model.
        reference_path: what it is compared with.
        text: a UTF-8 text; without one, the reference (or the model) writes what is read.
        settings: what is measured.
        progress: told how far it is.

    Raises:
        ConfigError: a path or the text can never work, or the two models do not share a vocabulary.
        ModelFileError: a model is damaged.
    """
    started = time.monotonic()
    asked = read_tasks(settings.tasks) if "tasks" in settings.parts else {}
    paths = [model_path] if reference_path is None else [model_path, reference_path]
    figures = columns = None
    levels: tuple[BandFigures, ...] = ()
    tasks: dict[str, TaskFigures] = {}
    models: list[LoadedModel] = []
    try:
        for path in paths:
            models.append(open_model(path))
        _check_vocabularies(models)
        _check_levels(models, settings)
        if "text" in settings.parts:
            columns, figures, levels = _read_text(models, text, settings, progress)
        tasks = _ask(models, asked, settings, progress)
    finally:
        for model in models:
            model.close()
    generation, samples = _generate(paths, settings, progress) if "generation" in settings.parts else (None, ())
    speed = _time(paths, settings, progress) if "speed" in settings.parts else {}
    return QualityReport(
        model=model_path.name,
        reference=None if reference_path is None else reference_path.name,
        text_source=_text_source(text, reference_path),
        figures=figures,
        columns=columns,
        tasks=tasks,
        generation=generation,
        samples=samples,
        speed=speed,
        levels=levels,
        seconds=time.monotonic() - started,
    )


def _text_source(text: Path | None, reference: Path | None) -> str:
    if text is not None:
        return text.name
    return "written by the model itself" if reference is None else "written by the reference"


def _check_vocabularies(models: Sequence[LoadedModel]) -> None:
    sizes = [model.spec.vocab_size for model in models]
    if len(set(sizes)) > 1:
        raise ConfigError(
            f"{models[0].path.name} has {sizes[0]} tokens and the reference {sizes[1]}.",
            "Compare models of one family.",
        )
    for model in models:
        if model.vocabulary is None:
            raise ConfigError(f"{model.path} has no vocabulary to read text with.", "Use a whole model file.")


def _check_levels(models: Sequence[LoadedModel], settings: ReportSettings) -> None:
    """Refuse levels that a model does not have, before anything is measured."""
    if settings.levels and len(models) < 2:
        raise ConfigError("Levels are held against a reference.", "Name one with --against.")
    if settings.text.activation_bits == EXACT_BITS and (settings.levels or settings.precision != "off"):
        raise ConfigError(
            "Float32 copies of the weights have no levels.", f"Leave out --activation-bits {EXACT_BITS}, or the levels."
        )
    check_precision("chapter" if settings.levels else settings.precision, models[0].weights)
    check_precision(settings.precision, models[0].weights)


def _read_text(
    models: Sequence[LoadedModel], text: Path | None, asked: ReportSettings, progress: Progress
) -> tuple[TokenColumns, Evaluation, tuple[BandFigures, ...]]:
    settings = asked.text
    windows = _own_windows(models[-1], settings, progress) if text is None else read_windows(models[0], text, settings)
    executor = make_executor(models[0], replace(settings, weight_format=asked.weights))
    others = [make_executor(model, settings) for model in models[1:]]
    reference = others[0] if others else None
    columns = read_columns(levelled(executor, asked.precision), windows, reference, progress)
    levels = read_levels(executor, reference, windows, progress) if asked.levels and reference is not None else ()
    sizes = [sum(model.weights.info(name).num_bytes for name in model.weights.names()) for model in models]
    return columns, summarise(columns, sizes[0], sizes[-1]), levels


def _own_windows(model: LoadedModel, settings: EvaluationSettings, progress: Progress) -> list[Tokens]:
    assert model.vocabulary is not None
    tokens = min(_SELF_TEXT.tokens, model.spec.context_length, settings.window_tokens)
    count = min(_SELF_TEXT.samples, settings.num_windows or _SELF_TEXT.samples)
    asked = CalibrationSettings(samples=count, tokens=max(tokens, 16), seed=_SELF_TEXT.seed)
    executor = NativeExecutor(
        build_graph(model.spec),
        model.weights,
        num_blocks=blocks_needed(asked),
        max_rows=max(asked.samples, 16),
        num_threads=settings.num_threads,
    )
    return write_samples(executor, asked, build_tokenizer(model.vocabulary).bos_id, progress)


def _ask(
    models: Sequence[LoadedModel], tasks: dict[str, list[Item]], settings: ReportSettings, progress: Progress
) -> dict[str, TaskFigures]:
    if not tasks:
        return {}
    chosen = {name: _few(items, settings.task_items) for name, items in tasks.items()}
    right: dict[str, list[list[bool]]] = {name: [] for name in chosen}
    for model in models:
        assert model.vocabulary is not None
        precision = settings.precision if model is models[0] else "off"
        weights = settings.weights if model is models[0] else FILE_WEIGHTS
        as_asked = replace(settings.text, weight_format=weights)
        executor = levelled(make_executor(model, as_asked, MOST_TOKENS), precision)
        subject = Subject(executor, build_tokenizer(model.vocabulary))
        for name, items in chosen.items():
            right[name].append(answer_items(subject, items, progress, name))
    return {name: _task_figures(answers) for name, answers in right.items()}


def _few(items: Sequence[Item], most: int) -> list[Item]:
    """Items spread evenly over a task; a tenth as many where answers are written out."""
    most = max(most // 10, 8) if any(isinstance(item, Sum) for item in items) else most
    if len(items) <= most:
        return list(items)
    return [items[number * len(items) // most] for number in range(most)]


def _task_figures(answers: Sequence[Sequence[bool]]) -> TaskFigures:
    own = answers[0]
    low, high = wilson_interval(sum(own), len(own))
    paired = compare_answers(own, answers[1]) if len(answers) > 1 else None
    return TaskFigures(len(own), sum(own) / len(own), low, high, paired)


def _generate(
    paths: Sequence[Path], settings: ReportSettings, progress: Progress
) -> tuple[GenerationComparison, tuple[tuple[str, str, str | None], ...]]:
    count, max_tokens = settings.answers
    prompts, written = PROMPTS[:count], list[Answers]()
    for number, path in enumerate(paths):
        progress(number, len(paths), "writing answers")
        precision = settings.precision if number == 0 else "off"
        asked = settings.text
        config = EngineConfig(
            num_threads=asked.num_threads,
            activation_bits=asked.activation_bits,
            precision=precision,
            weights=settings.weights if number == 0 else FILE_WEIGHTS,
        )
        service = build_service(str(path), config)
        try:
            most = min(max_tokens, max(service.context_length // 2, 1))
            written.append(write_answers(service, prompts, most))
        finally:
            service.close()
    progress(len(paths), len(paths), "answers written")
    other = written[1] if len(written) > 1 else None
    samples = tuple(
        (prompt, written[0][place][2], None if other is None else other[place][2])
        for place, prompt in enumerate(prompts)
    )
    return compare_generation(written[0], other, max_tokens), samples


def _time(paths: Sequence[Path], settings: ReportSettings, progress: Progress) -> dict[str, SpeedFigures]:
    """Each model in a process of its own, so that its memory is its own."""
    found = {}
    prompt, decode = settings.speed_tokens
    for number, (name, path) in enumerate(zip(("model", "reference"), paths, strict=False)):
        progress(number, len(paths), "measuring speed")
        command = [sys.executable, "-m", "vivace", "bench", "raw", "--model", str(path), "--json"]
        sizes = ["--prompt", str(prompt), "--decode", str(decode), "--repeat", "2"]
        threads = settings.text.num_threads
        more = [] if threads is None else ["--threads", str(threads)]
        more += ["--precision", settings.precision, "--weights", settings.weights] if number == 0 else []
        bits = settings.text.activation_bits
        more += [] if bits is None else ["--activation-bits", str(bits)]
        done = subprocess.run([*command, *sizes, *more], capture_output=True, text=True, check=False)
        if done.returncode == 0:  # a model whose context is too short for it has no speed in the report
            values = json.loads(done.stdout)
            found[name] = SpeedFigures(values["prompt"], values["decode"], values["peak_memory_bytes"])
    progress(len(paths), len(paths), "speed measured")
    return found


KINDS = {Choice: "multiple choice", LastWord: "last word", Sum: "worked out"}
"""Kinds of questions in words."""
