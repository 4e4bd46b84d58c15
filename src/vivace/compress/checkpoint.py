"""Where an interrupted compression goes on: after every layer, what is done of it is put beside the output file.

The folder holds a file of finished tensors for each layer, and one of what the walk has computed so far, which names
them. It carries a key made of everything that decides the result (source, recipe, samples, device), and is replaced in
one move. What belongs to another run, or is damaged, is no checkpoint.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from vivace.compress.arrays import Array, on_host
from vivace.compress.recipe import Recipe
from vivace.compress.stored import StoredTensor
from vivace.execute.score import Tokens
from vivace.files.open import LoadedModel
from vivace.types.errors import StorageError
from vivace.types.model import ModelSpec
from vivace.types.weights import RowBand, TensorFormat, WeightSource

_VERSION = 6  # of the arithmetic and the layout: a checkpoint of another is not taken up
_STATE = "state.npz"


@dataclass(slots=True)
class Progress:
    """What is done: segments walked, tensors stored, errors by name, and the walk's buffers of each batch."""

    segments: int = 0
    stored: dict[str, StoredTensor] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    buffers: list[dict[str, Array]] = field(default_factory=list)


class Checkpoint:
    """The progress of one run on disk.

    Args:
        folder: where it lies, and where a run's unfinished files lie; made when it is needed.
        key: names the run, as `run_key` gives it.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self._folder = folder
        self._key = key
        self._files: list[list[object]] = []  # a file of tensors: its name, and [name, shape, format, bands] of each

    def load(self) -> Progress | None:
        """What an earlier run of the same key has done; None when there is none, or it cannot be read."""
        try:
            with (self._folder / _STATE).open("rb") as held, np.load(held, allow_pickle=False) as arrays:
                header = json.loads(str(arrays["header"]))
                if header["key"] != self._key:
                    return None
                progress = Progress(header["segments"], {}, header["errors"], _read_buffers(header["names"], arrays))
            for file, tensors in header["files"]:
                with (self._folder / file).open("rb") as held, np.load(held, allow_pickle=False) as arrays:
                    progress.stored |= {
                        name: StoredTensor(tuple(shape), TensorFormat(format), arrays[str(number)], _bands(bands))
                        for number, (name, shape, format, bands) in enumerate(tensors)
                    }
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):
            return None
        self._files = header["files"]
        return progress

    def save(self, progress: Progress) -> None:
        """Add a layer; the state that names it is replaced in one move.

        Raises:
            StorageError: there is no room.
        """
        known = {name for _, tensors in self._files for name, *_ in tensors}  # type: ignore[attr-defined]
        new = {name: tensor for name, tensor in progress.stored.items() if name not in known}
        file = f"tensors{progress.segments}.npz"
        try:
            self._folder.mkdir(exist_ok=True)
            self._write(file, {str(number): tensor.data for number, tensor in enumerate(new.values())})
            self._files.append(
                [
                    file,
                    [
                        [name, list(t.shape), str(t.format), [astuple(band) for band in t.bands]]
                        for name, t in new.items()
                    ],
                ]
            )
            self._write(_STATE, self._state(progress))
        except OSError as error:
            raise _no_room(self._folder, error) from None

    def keep_beside(self, name: str, content: bytes) -> None:
        """Keep the state of what follows on the layers, in one move.

        Raises:
            StorageError: there is no room.
        """
        try:
            self._folder.mkdir(exist_ok=True)
            half = self._folder / f"{name}.half"
            half.write_bytes(self._key.encode() + b"\n" + content)
            half.replace(self._folder / name)
        except OSError as error:
            raise _no_room(self._folder, error) from None

    def kept_beside(self, name: str) -> bytes | None:
        """What a run of the same key has kept under a name; None when there is none."""
        try:
            key, _, content = (self._folder / name).read_bytes().partition(b"\n")
        except OSError:
            return None
        return content if key == self._key.encode() else None

    def _write(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        half = self._folder / f"{name}.half"
        with half.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        half.replace(self._folder / name)

    def _state(self, progress: Progress) -> dict[str, NDArray[Any]]:
        header = {
            "key": self._key,
            "segments": progress.segments,
            "errors": progress.errors,
            "files": self._files,
            "names": [list(buffers) for buffers in progress.buffers],
        }
        arrays: dict[str, NDArray[Any]] = {"header": np.array(json.dumps(header))}
        for batch, buffers in enumerate(progress.buffers):
            arrays |= {f"{batch}.{number}": on_host(array) for number, array in enumerate(buffers.values())}
        return arrays


def _bands(rows: list[list[Any]]) -> tuple[RowBand, ...]:
    return tuple(RowBand(begin, end, TensorFormat(format)) for begin, end, format in rows)


def _no_room(folder: Path, error: OSError) -> StorageError:
    return StorageError(
        f"Progress cannot be kept in {folder}: {error.strerror}.", "Free some space, or choose another OUT."
    )


def _read_buffers(names: list[list[str]], arrays: Mapping[str, NDArray[Any]]) -> list[dict[str, Array]]:
    return [
        {name: arrays[f"{batch}.{number}"] for number, name in enumerate(of_batch)}
        for batch, of_batch in enumerate(names)
    ]


def fingerprint(spec: ModelSpec, weights: WeightSource) -> str:
    """A hash of what a model is: its numbers, and every byte of its tensors, wherever they lie and whenever they came.

    All bytes and not some: a second a few gigabytes, and nothing that was changed can be taken for what it was.
    """
    state = hashlib.sha256(repr(spec).encode())
    for name in weights.names():
        state.update(repr(weights.info(name)).encode())
        state.update(weights.raw(name).data)
        weights.release(name)
    return state.hexdigest()


def run_key(source: str, recipe: Recipe, samples: Sequence[Tokens], device: str) -> str:
    """Hashes of what decides the result: the source's fingerprint, recipe, device; then the samples."""
    read = hashlib.sha256()
    for sample in samples:
        read.update(np.ascontiguousarray(sample).tobytes())
    return f"{_job_key(source, recipe, device)} {read.hexdigest()}"


def segments_done(folder: Path, source: LoadedModel, recipe: Recipe, device: str) -> int:
    """Segments that a stopped run has done, whatever text it read; 0 when nothing of this job is there."""
    try:
        with (folder / _STATE).open("rb") as held, np.load(held, allow_pickle=False) as arrays:
            header = json.loads(str(arrays["header"]))
        same = str(header["key"]).split()[0] == _job_key(fingerprint(source.spec, source.weights), recipe, device)
        return int(header["segments"]) if same else 0
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return 0


def _job_key(source: str, recipe: Recipe, device: str) -> str:
    return hashlib.sha256(f"{_VERSION} {source} {recipe!r} {device}".encode()).hexdigest()
