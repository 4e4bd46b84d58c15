"""The loop of tuning: batches in a seeded order, the windows held out between them, the best state kept on the way."""

import io
import pickle
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from vivace.compress.checkpoint import Checkpoint
from vivace.compress.progress import Report
from vivace.compress.statistics import CalibrationWalk, as_batch, grouped, layer_segments
from vivace.compress.stored import StoredTensor
from vivace.compress.torch_device import TorchDevice
from vivace.compress.torch_gradients import Reference, SegmentedModel
from vivace.compress.torch_tuning import Adam, Tuned, is_tuned, make_tuned
from vivace.compress.tuning import CHECKS, HELD_OUT, Tuning, TuningTask
from vivace.execute.score import Tokens
from vivace.graph.build import build_graph
from vivace.graph.graph import Graph
from vivace.graph.ops import Linear
from vivace.types.step import ForwardBatch
from vivace.types.weights import WeightSource

_PATIENCE = 2  # checks in a row that find nothing better
_FILE = "tuning.pt"


@dataclass(frozen=True, slots=True, eq=False)
class _Batch:
    """Whole windows, and what the source says at each of their tokens."""

    tokens: ForwardBatch
    aim: Reference


class Training:
    """One tuning, on a device as torch names it."""

    def __init__(self, task: TuningTask, device: str) -> None:
        torch.backends.cuda.matmul.allow_tf32 = False
        self._task, self._device, self._graph = task, device, build_graph(task.spec)
        count = len(task.windows)
        held = [n for n in range(count) if n % HELD_OUT == HELD_OUT - 1] or [count - 1]
        self._held = grouped([task.windows[n] for n in held])
        self._read = grouped([window for n, window in enumerate(task.windows) if n not in set(held)])
        self._tuned: dict[str, Tuned] = {
            name: make_tuned(plan, task.rounded, device)
            for name, plan in task.layout.items()
            if is_tuned(plan, norms=task.settings.norms)
        }
        self._fixed: dict[str, torch.Tensor] = {}
        self._model = SegmentedModel(self._graph, device)
        self._best: list[torch.Tensor] = self._changes()

    def stored(self) -> dict[str, StoredTensor]:
        """The tuned tensors in the best state found."""
        stored = {}
        for (name, tuned), best in zip(self._tuned.items(), self._best, strict=True):
            info = self._task.rounded.info(name)
            before = StoredTensor(info.shape, info.format, self._task.rounded.raw(name))
            stored[name] = replace(tuned, change=best).stored(before)
        return stored

    def run(self, report: Report, checkpoint: Checkpoint | None) -> Tuning:
        """Tune until the windows held out gain no more, or all is read as often as the settings say."""
        settings = self._task.settings
        report(0, 1, "reading the source to tune to")
        batches = self._batches()
        read, held = batches[: len(self._read)], batches[len(self._read) :]
        num_steps = settings.epochs * len(read)
        adam = Adam([tuned.change for tuned in self._tuned.values()], settings.rate, num_steps)
        found = self._resumed(adam, checkpoint) or [self._mean(held)]
        every = max(1, num_steps // CHECKS)
        while adam.done < num_steps and not _is_over(found):
            report(adam.done, num_steps, f"tuning scales, KL {min(found):.4f}")
            order = np.random.default_rng((self._task.seed, adam.done // len(read))).permutation(len(read))
            self._divergence(read[order[adam.done % len(read)]], learn=True)
            adam.step()
            if adam.done % every == 0 or adam.done == num_steps:
                found.append(self._mean(held))
                if found[-1] < min(found[:-1]):
                    self._best = self._changes()
                self._keep(adam, found, checkpoint)
        report(num_steps, num_steps, "tuned")
        return Tuning(adam.done, found[0], min(found))

    def timed(self) -> tuple[dict[int, float], dict[int, float]]:
        """Seconds of each segment of the op list, for one batch that is learnt from and for one that is only read."""
        batch = self._batches()[0]
        self._divergence(batch, learn=True)  # the first time, much is made ready
        return self._seconds(batch, learn=True), self._seconds(batch, learn=False)

    def _seconds(self, batch: _Batch, *, learn: bool) -> dict[int, float]:
        found: dict[int, float] = {}
        last = time.perf_counter()

        def lap(number: int) -> None:
            nonlocal last
            if self._device == "cuda":
                torch.cuda.synchronize()
            now = time.perf_counter()
            found[number] = found.get(number, 0.0) + now - last
            last = now

        self._divergence(batch, learn=learn, lap=lap)
        return found

    def _batches(self) -> list[_Batch]:
        """Those to read, then those held out, each with what the source's head reads there."""
        groups = [*self._read, *self._held]
        rows = reference_rows(self._graph, self._task.source, [w for group in groups for w in group], self._device)
        head = torch.as_tensor(self._task.source.dequantize(_head_of(self._graph).weight)).to(self._device)
        sizes = [sum(map(len, group)) for group in groups]
        return [
            _Batch(as_batch(group), Reference(part, head))
            for group, part in zip(groups, torch.split(rows, sizes), strict=True)
        ]

    def _divergence(self, batch: _Batch, *, learn: bool, lap: Callable[[int], None] = lambda number: None) -> float:
        return self._model.divergence(batch.tokens, batch.aim, self._weight, learn=learn, lap=lap)

    def _mean(self, batches: Sequence[_Batch]) -> float:
        """KL divergence a token."""
        total = sum(self._divergence(batch, learn=False) for batch in batches)
        return total / sum(len(batch.aim.rows) for batch in batches)

    def _changes(self) -> list[torch.Tensor]:
        return [tuned.change.detach().clone() for tuned in self._tuned.values()]

    def _weight(self, name: str) -> torch.Tensor:
        if name in self._tuned:
            return self._tuned[name].value()
        if name.startswith("layers."):
            return torch.as_tensor(self._task.rounded.dequantize(name)).to(self._device)
        if name not in self._fixed:  # embedding and head are read at every step
            self._fixed[name] = torch.as_tensor(self._task.rounded.dequantize(name)).to(self._device)
        return self._fixed[name]

    def _keep(self, adam: Adam, found: list[float], checkpoint: Checkpoint | None) -> None:
        if checkpoint is None:
            return
        state = {**adam.state(), "found": found, "best": self._best, "changes": self._changes()}
        written = io.BytesIO()
        torch.save(state, written)
        checkpoint.keep_beside(_FILE, written.getvalue())

    def _resumed(self, adam: Adam, checkpoint: Checkpoint | None) -> list[float]:
        """What checks of an interrupted run have found; [] when there was none, or what it kept is damaged."""
        content = None if checkpoint is None else checkpoint.kept_beside(_FILE)
        if content is None:
            return []
        try:
            state = torch.load(io.BytesIO(content), map_location=self._device, weights_only=True)
        except (RuntimeError, ValueError, EOFError, pickle.UnpicklingError):
            return []
        with torch.no_grad():
            for tuned, change in zip(self._tuned.values(), state["changes"], strict=True):
                tuned.change.copy_(change)
        self._best = list(state["best"])
        adam.resume(state)
        found: list[float] = state["found"]
        return found


def reference_rows(graph: Graph, weights: WeightSource, windows: Sequence[Tokens], device: str) -> torch.Tensor:
    """What the head of a model reads at every token of all windows, float32 (tokens, width), in order."""
    walk, segments = CalibrationWalk(graph, windows, TorchDevice(device)), layer_segments(graph)
    head = _head_of(graph)
    for segment in segments[:-1]:
        cache: dict[str, np.ndarray] = {}

        def read(name: str, cache: dict[str, np.ndarray] = cache) -> np.ndarray:
            if name not in cache:
                cache[name] = weights.dequantize(name)
            return cache[name]

        walk.advance(segment, read)
    found = [walk.inputs(number, segments[-1], weights.dequantize)[head.x] for number in range(len(walk.batches))]
    return torch.cat(found)


def _head_of(graph: Graph) -> Linear:
    head = graph.ops[-1]
    assert isinstance(head, Linear)
    return head


def _is_over(found: Sequence[float]) -> bool:
    """Whether the last checks have found nothing better than those before them."""
    return len(found) > _PATIENCE and min(found[-_PATIENCE:]) >= min(found[:-_PATIENCE])
