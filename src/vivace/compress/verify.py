"""After saving: open the file again and hold it to what was meant: formats, bytes, and logits against the source."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vivace.compress.containers import CONTAINERS
from vivace.compress.evaluate import EvaluationSettings, make_executor
from vivace.compress.layout import Layout
from vivace.compress.pipeline import CompressedModel
from vivace.execute.score import Agreement, Tokens, compare_executors
from vivace.files.open import LoadedModel, open_model
from vivace.types.errors import ModelFileError

_PIECE = 1 << 20  # bytes
_BROKEN_KL = 8.0  # nats: about what a model that knows nothing has against one that knows


@dataclass(frozen=True, slots=True)
class Verification:
    """Bytes of the file, share of its matrices' weights that are quantised, and how near its logits are."""

    file_bytes: int
    quantized_share: float
    agreement: Agreement


def verify_file(path: Path, source: LoadedModel, compressed: CompressedModel, window: Tokens) -> Verification:
    """Check a file that was just written.

    Args:
        path: the file.
        source: what it was made from.
        compressed: what it has to hold.
        window: tokens to compare logits on.

    Raises:
        ModelFileError: the file is not what was meant, or its logits have nothing to do with the source's.
    """
    written = open_model(path)
    try:
        if written.run_settings != compressed.run_settings:
            raise ModelFileError(f"{path} does not say how it is to be run.", "Try again.")
        layout = {outcome.plan.name: outcome.plan for outcome in compressed.outcomes}
        share = _check_bytes(written, layout, compressed)
        agreement = _compare(source, written, window)
    finally:
        written.close()
    if not agreement.mean_kl < _BROKEN_KL:
        raise ModelFileError(
            f"The compressed model says something else entirely (KL {agreement.mean_kl:.3g} nats).",
            "Choose more bits, or a recipe with calibration.",
        )
    files = [path] if path.is_file() else [file for file in path.iterdir() if file.is_file()]
    return Verification(sum(file.stat().st_size for file in files), share, agreement)


def _check_bytes(written: LoadedModel, layout: Layout, compressed: CompressedModel) -> float:
    """Formats and bytes are the planned ones; returns the share of matrix weights that are quantised."""
    total = quantized = 0
    for name, plan in layout.items():
        info = written.weights.info(name)
        wanted = compressed.weights.info(name)
        if (info.row_bands, info.shape, info.num_bytes) != (wanted.row_bands, wanted.shape, plan.num_bytes):
            raise ModelFileError(f"{name} was to be {wanted.format} and was written as {info.format}.", "Try again.")
        same = _counted(written.weights.raw(name))
        if not np.array_equal(same, _counted(compressed.weights.raw(name))):
            raise ModelFileError(f"The bytes of {name} in the file are not those that were made.", "Try again.")
        count = int(np.prod(info.shape)) if len(info.shape) > 1 else 0
        total += count
        quantized += count if info.format in CONTAINERS else 0
    return quantized / total


def _counted(data: NDArray[np.uint8]) -> NDArray[np.int64]:
    """How often each byte occurs, a piece at a time: numpy widens what it counts eightfold."""
    pieces = (data[start : start + _PIECE] for start in range(0, len(data), _PIECE))
    return sum((np.bincount(piece, minlength=256) for piece in pieces), np.zeros(256, np.int64))


def _compare(source: LoadedModel, written: LoadedModel, window: Tokens) -> Agreement:
    """Both as their files ask to be run."""
    reference, candidate = (make_executor(model, EvaluationSettings(), len(window)) for model in (source, written))
    return compare_executors(reference, candidate, [window])
