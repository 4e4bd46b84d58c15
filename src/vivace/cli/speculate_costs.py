"""What `vivace plan speculate` measures: steps of a model, of its first layers, and of a draft model that is there."""

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, cast

from vivace.plan.draft_sizes import DraftModel, StepLine, fit_line
from vivace.types.errors import ConfigError

if TYPE_CHECKING:
    from vivace.execute.native import NativeExecutor
    from vivace.files.open import LoadedModel
    from vivace.speculate.trial import ExitingExecutor

MEASURED_ROWS = (1, 2, 3, 4, 5, 7, 9, 13, 17)
CONTEXT_TOKENS = 128
SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2)  # of the model's weights: sizes that are thought of unless some are named


@dataclass(frozen=True, slots=True)
class WantedSize:
    """A draft model to think of: its weights, and its acceptance where it has one of its own."""

    name: str
    num_weights: float
    acceptance: float | None = None


@dataclass(frozen=True, slots=True)
class MeasuredSteps:
    """Of a model: milliseconds by rows, weights and bytes that a step reads, and what a byte of them takes."""

    step_ms: dict[int, float]
    num_weights: int
    num_bytes: int
    line: StepLine

    def sizes(self, wanted: Sequence[WantedSize], acceptance: float) -> list[DraftModel]:
        """Draft models in the model's own format; without any wanted, shares of its weights."""
        wanted = wanted or [WantedSize(_short(self.num_weights * s), self.num_weights * s) for s in SHARES]
        drafts = []
        for size in wanted:
            num_bytes = int(size.num_weights * self.num_bytes / self.num_weights)
            cost = self.line.ms(num_bytes) / self.step_ms[1]
            drafts.append(
                DraftModel(size.name, num_bytes, cost, acceptance if size.acceptance is None else size.acceptance)
            )
        return drafts


def read_sizes(text: str) -> list[WantedSize]:
    """Sizes such as `10M,30M:0.6`, each with its acceptance or without.

    Raises:
        ConfigError: they are written otherwise.
    """
    from vivace.cli.quantities import read_count

    sizes = []
    for part in text.split(","):
        name, _, acceptance = (piece.strip() for piece in part.partition(":"))
        weights = read_count(name, "--draft-sizes")
        try:
            share = float(acceptance) if acceptance else None
        except ValueError:
            share = -1.0
        if weights < 1 or not (share is None or 0 <= share <= 1):
            raise ConfigError(f"--draft-sizes has {part!r}.", "Write sizes such as 10M, with an acceptance 10M:0.6.")
        sizes.append(WantedSize(name, weights, share))
    return sizes


def measure_steps(
    model: str, draft: str | None, threads: int | None, acceptance: float | None
) -> tuple[MeasuredSteps, DraftModel | None]:
    """Time a model, and a draft model beside it.

    Args:
        model: a catalogue name, a file or a folder.
        draft: the same, of the same vocabulary, or None.
        threads: that compute; None: the machine's cores.
        acceptance: of the draft model's drafts; None: the share that it foresees of a text which the model writes.

    Raises:
        VivaceError: there is no such model, or the draft has another vocabulary.
    """
    from vivace.files.catalogue import resolve
    from vivace.files.open import open_model

    with ExitStack() as stack:
        loaded = stack.enter_context(closing(open_model(resolve(model))))
        drafting = None if draft is None else stack.enter_context(closing(open_model(resolve(draft))))
        trial_ids = None if drafting is None else _trial_ids(loaded, drafting)
        executor = _executor(loaded, threads)
        steps = _time_steps(loaded, executor)
        if drafting is None or trial_ids is None:
            return steps, None
        own = _executor(drafting, threads)
        share = _tried(executor, own, trial_ids) if acceptance is None else acceptance
        return steps, _time_draft(drafting, own, steps.step_ms[1], share)


def _trial_ids(loaded: "LoadedModel", drafting: "LoadedModel") -> list[int]:
    """What a trial begins with; refuses a draft model of another vocabulary."""
    from vivace.engine.speculation import TRIAL_TEXT, check_vocabulary
    from vivace.text.build import build_tokenizer

    if loaded.vocabulary is None:
        raise ConfigError(f"{loaded.name} has no vocabulary.", "Leave --draft out, or give a model with a tokenizer.")
    tokenizer = build_tokenizer(loaded.vocabulary)
    check_vocabulary(drafting, loaded.spec, tokenizer)
    return list(tokenizer.encode(TRIAL_TEXT))


def _time_steps(loaded: "LoadedModel", executor: "NativeExecutor") -> MeasuredSteps:
    from vivace.speculate.measure_costs import measure_step_costs
    from vivace.speculate.trial import candidate_layers

    step_ms = measure_step_costs(executor, MEASURED_ROWS, context=CONTEXT_TOKENS)
    num_weights, num_bytes = _read_by_a_step(loaded, loaded.spec.num_layers)
    points = {num_bytes: step_ms[1]}
    for layers in candidate_layers(loaded.spec.num_layers) if loaded.spec.num_layers > 1 else ():
        early = cast("ExitingExecutor", executor).early_exit(layers, executor.max_rows)
        _, size = _read_by_a_step(loaded, layers)
        points[size] = measure_step_costs(early, (1,), context=CONTEXT_TOKENS)[1]
    return MeasuredSteps(step_ms, num_weights, num_bytes, fit_line(points))


def _time_draft(loaded: "LoadedModel", executor: "NativeExecutor", plain_ms: float, acceptance: float) -> DraftModel:
    from vivace.speculate.measure_costs import measure_step_costs

    pass_ms = measure_step_costs(executor, (1,), context=CONTEXT_TOKENS)[1]
    _, num_bytes = _read_by_a_step(loaded, loaded.spec.num_layers)
    return DraftModel(loaded.name, num_bytes, pass_ms / plain_ms, acceptance, is_measured=True)


def _tried(executor: "NativeExecutor", draft: "NativeExecutor", trial_ids: list[int]) -> float:
    from vivace.speculate.trial import acceptance_of, write_trial

    return acceptance_of(draft, write_trial(executor, trial_ids))


def _executor(loaded: "LoadedModel", threads: int | None) -> "NativeExecutor":
    from vivace.execute.native import NativeExecutor
    from vivace.graph.build import build_graph
    from vivace.types.step import BLOCK_SIZE

    rows = CONTEXT_TOKENS + max(MEASURED_ROWS)
    num_blocks = -(-rows // BLOCK_SIZE)
    return NativeExecutor(
        build_graph(loaded.spec), loaded.weights, num_blocks=num_blocks, max_rows=rows, num_threads=threads
    )


def _read_by_a_step(loaded: "LoadedModel", num_layers: int) -> tuple[int, int]:
    """Weights and their bytes that a step of the first layers with the head reads; of an embedding it reads a row."""
    names = loaded.weights.names()
    infos = []
    for name in names:
        if name == "embed.weight" and "lm_head.weight" in names:
            continue
        if name.startswith("layers.") and int(name.split(".")[1]) >= num_layers:
            continue
        infos.append(loaded.weights.info(name))
    return sum(prod(info.shape) for info in infos), sum(info.num_bytes for info in infos)


def _short(num_weights: float) -> str:
    unit, size = ("B", num_weights / 1e9) if num_weights >= 1e9 else ("M", num_weights / 1e6)
    return f"{size:.3g}{unit}"
