"""Time and peak memory of a compression before it begins: a few seconds of probing, scaled to the whole.

Nothing is tabulated: every pace is measured on this machine, device and model. Memory counts what the system counts for
the process: its own pages and those mapped from files.
"""

import math
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vivace.compress.calibration_text import draw_windows
from vivace.compress.checkpoint import segments_done
from vivace.compress.device import Device, NumpyDevice
from vivace.compress.ends import EMBEDDING, known_head
from vivace.compress.estimate_tuning import probe_tuning
from vivace.compress.evaluate import EvaluationSettings, make_executor
from vivace.compress.layout import Layout, plan_layout
from vivace.compress.output import check_output, file_bytes, for_folder, workplace_of
from vivace.compress.pipeline import rotated
from vivace.compress.probe import Kind, LayerPace, PipelinePace, layer_kinds, probe_disk, probe_pipeline
from vivace.compress.recipe import CalibrationSettings, Recipe
from vivace.compress.samples import CalibrationText, writer
from vivace.compress.save import CHECK
from vivace.compress.self_text import seconds_a_step, steps_needed
from vivace.compress.text_kinds import relabelled
from vivace.compress.tuning import tuning_settings, without_missing
from vivace.execute.score import iterate_logits
from vivace.files.open import LoadedModel, open_model
from vivace.graph.build import build_graph
from vivace.text.build import build_tokenizer
from vivace.types.errors import StorageError

_COUNTED_BYTES = 1 << 24


@dataclass(frozen=True, slots=True)
class Pace:
    """What was measured.

    Attributes:
        pipeline: of the stages that compress.
        text_s: seconds to read or write the calibration text, in all.
        check_s: likewise of the comparison of logits.
        disk_s: a byte that is written and flushed.
        count_s: a byte that is read back and counted.
        now_bytes: what the process holds before the run.
        executor_bytes: what the source's executor added.
        seen_bytes: the most that the process has held so far.
        tuning: seconds of tuning scales in all, and bytes above what is held by then.
    """

    pipeline: PipelinePace
    text_s: float
    check_s: float
    disk_s: float
    count_s: float
    now_bytes: int
    executor_bytes: int
    seen_bytes: int
    tuning: tuple[float, int] = (0.0, 0)


@dataclass(frozen=True, slots=True)
class End:
    """A tensor outside layers: its weights, and the share of the work that is done when it is rounded."""

    weights: int
    after: float


@dataclass(frozen=True, slots=True)
class Work:
    """What there is to do.

    Attributes:
        layers: the kind of each layer still to do.
        ends: each tensor outside layers that is still to be rounded, by name.
        samples: of calibration; `tokens` of all of them, 0 without.
        stream_bytes: what the walk holds between layers: the residual stream of all tokens.
        pages_bytes: keys and values of one step of the walk.
        out_bytes: of the tensors that are made.
        source_bytes: of the tensors they are made from.
        file_bytes: of the file that comes out, if known.
    """

    layers: tuple[Kind, ...]
    ends: Mapping[str, End]
    samples: int
    tokens: int
    stream_bytes: int
    pages_bytes: int
    out_bytes: int
    source_bytes: int
    file_bytes: int | None = None

    @property
    def disk_bytes(self) -> int:
        """The most that the run has on disk: the file, and before it what is kept for a run that is stopped."""
        return self.out_bytes + (self.out_bytes + self.stream_bytes if self.tokens else 0)


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds by stage, the most bytes that the process will hold, and bytes of the tensors that come out, if known.

    `file_bytes` are those of the file with its vocabulary, if known; `more_s` is what a search may take longer, by how
    many layouts it tries.
    """

    stages: Mapping[str, float]
    peak_bytes: int
    tensor_bytes: int | None
    more_s: float = 0.0
    file_bytes: int | None = None

    @property
    def seconds(self) -> float:
        """In all."""
        return sum(self.stages.values())

    def sentence(self) -> str:
        """For people: "about 2 min 10 s, 640 MB of memory, 90.1 MB of tensors"."""
        size = "" if self.tensor_bytes is None else f", {self.tensor_bytes / 1e6:.1f} MB of tensors"
        size += "" if self.file_bytes is None else f" in a file of {self.file_bytes:,} bytes"
        most = f" ({duration(self.seconds + self.more_s)} at most)" if self.more_s else ""
        return f"about {duration(self.seconds)}{most}, {self.peak_bytes / 1e6:.0f} MB of memory{size}"


def duration(seconds: float) -> str:
    """ "14 s", "2 min 10 s" or "3 h 5 min"."""
    whole = max(1, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def foretell(pace: Pace, work: Work) -> Estimate:
    """Scale what was measured to what there is to do; layers of kinds that were not probed cost as the others do."""
    pipeline = pace.pipeline
    paces = list(pipeline.layers.values()) or [LayerPace()]
    usual = LayerPace(
        sum(p.token_s for p in paces) / len(paces),
        sum(p.fixed_s for p in paces) / len(paces),
        max(p.extra_bytes for p in paces),
    )
    layers = [(pipeline.layers.get(kind, usual), count) for kind, count in Counter(work.layers).items()]
    kept = len(work.layers) * work.stream_bytes + work.out_bytes if work.tokens else 0  # progress, layer by layer
    ends_s = sum(pipeline.weight_s.get(name, 0.0) * end.weights for name, end in work.ends.items())
    stages = {
        "text": pace.text_s,
        "walk": work.tokens * (pipeline.token_s + sum(p.token_s * count for p, count in layers)),
        "rounding": ends_s + sum(p.fixed_s * count for p, count in layers),
        **({"tuning": pace.tuning[0]} if pace.tuning[0] else {}),
        "writing": pace.disk_s * (work.out_bytes + kept),
        "check": pace.check_s + 2 * pace.count_s * work.out_bytes,
    }
    peak = _peak(pace, work, [p for p, _ in layers])
    return Estimate(stages, peak, work.out_bytes, file_bytes=work.file_bytes)


def _peak(pace: Pace, work: Work, layers: Sequence[LayerPace]) -> int:
    """The largest of: so far; each tensor outside layers as it is rounded; the last layer; and the check.

    What is read of the source stays mapped, what is made stays in memory.

    The check holds what was made in memory and as packed by an executor of its own (the file's pages go as they are
    packed), next to the source's pages and executor.
    """
    held, walk = work.source_bytes + work.out_bytes, work.stream_bytes + work.pages_bytes
    ends = [
        round(end.after * (held + walk) + pace.pipeline.weight_bytes.get(name, 0.0) * end.weights)
        for name, end in work.ends.items()
    ]
    rounding = max([*ends, *(held + walk + p.extra_bytes for p in layers)], default=0)
    check = held + work.out_bytes + pace.executor_bytes
    tuning = held + pace.tuning[1]
    return max(pace.seen_bytes, pace.now_bytes + max(rounding, tuning, check))


def estimate_file(
    source_path: Path,
    out: Path,
    recipe: Recipe,
    text: CalibrationText | None = None,
    *,
    overwrite: bool = False,
    device: Device | None = None,
) -> Estimate:
    """What `compress_file` with the same arguments (and no budget) will take from here; writes nothing.

    Raises:
        ConfigError: a path or the recipe can never work.
        ModelFileError: the source is damaged.
    """
    source = open_model(source_path)
    try:
        return foretell(*measure_run(source, out, recipe, text, overwrite=overwrite, device=device))
    finally:
        source.close()


def measure_run(
    source: LoadedModel,
    out: Path,
    recipe: Recipe,
    text: CalibrationText | None,
    *,
    overwrite: bool,
    device: Device | None,
) -> tuple[Pace, Work]:
    """The paces of a run, and what it has to do; see `estimate_file`."""
    check_output(source.path, out, overwrite=overwrite)
    recipe, _ = without_missing(recipe if out.suffix else for_folder(recipe, mixes=False))
    device = device or NumpyDevice()
    spec, weights = rotated(source.spec, source.weights, recipe)
    layout, _ = plan_layout(spec, weights, recipe), recipe.run_settings  # refuse before any work is done
    done = segments_done(workplace_of(out), source, recipe, device.name) if recipe.needs_calibration else 0
    text_s, check_s, executor_bytes = _probe_executors(source, recipe, text)
    pipeline = probe_pipeline(source.spec, source.weights, recipe, layout, device)
    count_s, disk_s = _probe_counting(), probe_disk(out.parent)
    tuning = probe_tuning(source.spec, source.weights, recipe, layout, device)
    now = resident_bytes()  # with what probing leaves behind, and a run finds
    pace = Pace(pipeline, text_s, check_s, disk_s, count_s, now, executor_bytes, peak_resident_bytes(), tuning)
    work = replace(_work(source, recipe, layout, done), file_bytes=file_bytes(out, source, weights, recipe, layout))
    check_room(out.parent, work.disk_bytes)
    return pace, work


def check_room(folder: Path, num_bytes: int) -> None:
    """Refuse a run whose results the disk could not hold.

    Raises:
        StorageError: there is less room.
    """
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise StorageError(
            f"{folder} has room for {free / 1e6:.0f} MB, and the run needs about {num_bytes / 1e6:.0f} MB.",
            "Free some space, or choose another OUT.",
        )


def _work(source: LoadedModel, recipe: Recipe, layout: Layout, done: int) -> Work:
    """`done` segments are left out: the first is what comes before the layers."""
    spec = source.spec
    settings = recipe.calibration
    size = min(settings.tokens, spec.context_length)
    tokens = settings.samples * size if recipe.reads_text else 0
    out_bytes = sum(plan.num_bytes for plan in layout.values())
    step = min(tokens, max(size, 2048))
    return Work(
        layers=tuple(layer_kinds(layout, spec.num_layers)[max(done - 1, 0) :]),
        ends=_ends(layout, out_bytes, walked=bool(tokens), resumed=done > 0, late=_late(source, recipe, layout)),
        samples=settings.samples,
        tokens=tokens,
        stream_bytes=4 * tokens * spec.hidden_size * (2 if recipe.drift_correction else 1),
        pages_bytes=8 * step * spec.num_layers * spec.attention.num_kv_heads * spec.attention.head_dim,
        out_bytes=out_bytes,
        source_bytes=sum(source.weights.info(name).num_bytes for name in source.weights.names()),
    )


def _late(source: LoadedModel, recipe: Recipe, layout: Layout) -> bool:
    """Whether the embedding is rounded last, as the head that it is too."""
    head = known_head(build_graph(source.spec), recipe, layout) if recipe.needs_calibration else None
    return head is not None and head.weight == EMBEDDING


def _ends(layout: Layout, out_bytes: int, *, walked: bool, resumed: bool, late: bool) -> dict[str, End]:
    """A walk rounds the embedding first, unless `late`, and the head last; without one, tensors go in order."""
    ends, made = {}, 0
    for name, plan in layout.items():
        is_first = name == EMBEDDING and not late
        if not name.startswith("layers.") and not (resumed and is_first):
            after = float(not is_first) if walked else made / out_bytes
            ends[name] = End(math.prod(plan.shape), after)
        made += plan.num_bytes
    return ends


def _probe_executors(source: LoadedModel, recipe: Recipe, text: CalibrationText | None) -> tuple[float, float, int]:
    """Seconds of the text and of the comparison of logits, and bytes that an executor of the source takes."""
    given = text is not None and bool(text.paths or text.logs)
    needed = recipe.reads_text
    settings = CHECK if given or not needed else recipe.calibration
    before, started = resident_bytes(), time.perf_counter()
    executor, settings = writer(source, settings)
    load_s = time.perf_counter() - started
    drawn = [settings, *_tuning_draw(recipe)] if needed else [settings]
    text_s = load_s + sum(map(steps_needed, drawn)) * seconds_a_step(executor, settings)
    executor_bytes = max(resident_bytes() - before, 0)
    del executor
    if given and needed:
        text_s = sum(reading_s(source, each, text) for each in (recipe.calibration, *_tuning_draw(recipe)))
    started = time.perf_counter()
    checker = make_executor(source, EvaluationSettings(), CHECK.tokens)
    for _ in iterate_logits(checker, np.zeros(CHECK.tokens - 1, np.int32), CHECK.tokens // 2):
        pass
    return text_s, 2 * (time.perf_counter() - started), executor_bytes


def _tuning_draw(recipe: Recipe) -> list[CalibrationSettings]:
    """How windows to tune on are drawn, where any are."""
    return [] if recipe.tuning is None else [tuning_settings(recipe.calibration, recipe.tuning)]


def reading_s(source: LoadedModel, settings: CalibrationSettings, text: CalibrationText | None) -> float:
    """Seconds of reading all of it, and splitting a sixteenth of what is drawn into tokens."""
    if source.vocabulary is None or text is None:
        return 0.0
    tokenizer = build_tokenizer(source.vocabulary)
    started = time.perf_counter()
    texts = text.read()
    read = time.perf_counter()
    few = replace(settings, samples=max(1, settings.samples // 16))
    draw_windows(relabelled(texts) if text.by_kind else texts, tokenizer, few, text.mix)
    return read - started + (time.perf_counter() - read) * settings.samples / few.samples


def _probe_counting() -> float:
    data = np.zeros(_COUNTED_BYTES, np.uint8)
    started = time.perf_counter()
    np.bincount(data, minlength=256)
    return (time.perf_counter() - started) / _COUNTED_BYTES


def resident_bytes() -> int:
    """What the process holds now (Linux; elsewhere the most it has held)."""
    return _status_bytes("VmRSS") or peak_resident_bytes()


def peak_resident_bytes() -> int:
    """The most the process has held; 0 where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _status_bytes(field: str) -> int:
    try:
        text = Path(f"/proc/{os.getpid()}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith(field)), 0)
