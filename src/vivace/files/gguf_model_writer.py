"""Writes a whole model as one GGUF file, from any `WeightSource`, with what its source said about text.

Metadata of a GGUF source is copied; that of a Hugging Face folder is made, and its tokenizer files travel inside the
GGUF file as two byte arrays that vivace's reader knows (`vivace.tokenizer.json`, `vivace.tokenizer.config`).
"""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vivace.files.families import FAMILIES
from vivace.files.gguf import GgufFile
from vivace.files.gguf_bands import band_name
from vivace.files.gguf_keys import frequency_factors, spec_metadata
from vivace.files.gguf_model import FREQUENCY_FACTORS, gguf_name
from vivace.files.gguf_values import StringArray
from vivace.files.gguf_vocabulary import TOKENIZER_CONFIG, TOKENIZER_JSON
from vivace.files.gguf_writer import TensorToWrite, WritableValue, gguf_file_bytes, write_gguf_file
from vivace.files.open import LoadedModel
from vivace.files.run_settings import ACTIVATION_BITS, KV_FORMAT, SCHEME
from vivace.numerics.row_bands import split_bands
from vivace.types.model import ModelSpec
from vivace.types.vocabulary import HuggingFaceVocabulary
from vivace.types.weights import TensorFormat, TensorInfo, WeightSource

_NOT_COPIED = (
    "split.",
    "general.file_type",
    "general.quantization_version",
    "general.alignment",
    ACTIVATION_BITS,
    KV_FORMAT,
    SCHEME,
)
QUANTIZATION_VERSION = 2  # of GGML's block formats


def write_gguf_model(
    path: Path, source: LoadedModel, weights: WeightSource, notes: Mapping[str, WritableValue] | None = None
) -> None:
    """Write `weights` with the settings and the vocabulary of `source`; the file appears whole or not at all.

    Args:
        path: the file to make; its folder exists.
        source: gives the spec, and the file or folder that the rest is taken from.
        weights: every tensor of the spec, with rows in the lane order of the source's rope.
        notes: metadata keys to add.

    Raises:
        ModelFileError: the source's metadata cannot be read.
        UnsupportedModelError: GGUF has no keys for something that the model does.
        OSError: the file cannot be written.
    """
    reorder = _RowOrder(source.spec)
    infos = {name: weights.info(name) for name in weights.names()}
    tensors = _tensors(source, infos, lambda name: reorder.apply(name, weights.raw(name)))
    write_gguf_file(path, {**_metadata(source), **(notes or {})}, tensors)


def gguf_model_bytes(
    source: LoadedModel, infos: Mapping[str, TensorInfo], notes: Mapping[str, WritableValue] | None = None
) -> int:
    """Bytes of the file that `write_gguf_model` would make of such tensors, to the byte; writes nothing.

    Raises:
        ModelFileError: the source's metadata cannot be read.
        UnsupportedModelError: GGUF has no keys for something that the model does.
    """
    tensors = _tensors(source, infos, lambda _: np.empty(0, np.uint8))
    return gguf_file_bytes({**_metadata(source), **(notes or {})}, tensors)


def _metadata(source: LoadedModel) -> dict[str, WritableValue]:
    metadata = _folder_metadata(source) if source.path.is_dir() else _copied_metadata(source.path)
    return metadata | {"general.quantization_version": QUANTIZATION_VERSION}


def _tensors(
    source: LoadedModel, infos: Mapping[str, TensorInfo], read: Callable[[str], NDArray[np.uint8]]
) -> list[TensorToWrite]:
    """What lies in the file, in order; `read` gives bytes of a tensor in the file's order of rows."""
    tensors = []
    for name, info in infos.items():
        for number, band in enumerate(info.bands):
            shape = (band.num_rows, info.shape[1])
            piece = partial(_read_band, info, number, read)
            tensors.append(TensorToWrite(band_name(gguf_name(name), band.begin), shape, band.format, piece))
        if not info.bands:
            tensors.append(TensorToWrite(gguf_name(name), info.shape, info.format, partial(read, name)))
    factors = frequency_factors(source.spec.attention.rope)
    if factors is not None:
        data = factors.view(np.uint8)
        tensors.append(TensorToWrite(FREQUENCY_FACTORS, factors.shape, TensorFormat.F32, lambda: data))
    return tensors


def _read_band(info: TensorInfo, number: int, read: Callable[[str], NDArray[np.uint8]]) -> NDArray[np.uint8]:
    return split_bands(info.bands, read(info.name), info.shape[1])[number]


class _RowOrder:
    """Rows of queries and keys as GGUF wants them: some families pair lanes (0, 1), (2, 3) there."""

    def __init__(self, spec: ModelSpec) -> None:
        rope = spec.attention.rope
        self._needed = FAMILIES[spec.architecture].gguf_interleaved_rope and not rope.interleaved
        half = rope.dim // 2
        lanes = np.arange(spec.attention.head_dim)
        lanes[: rope.dim] = np.stack([np.arange(half), np.arange(half) + half], axis=1).reshape(-1)
        self._lanes = lanes
        heads = spec.attention
        self._heads = {"attn.q": heads.num_heads, "attn.k": heads.num_kv_heads}

    def apply(self, name: str, data: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The bytes of a tensor in GGUF's row order; quantised rows keep their blocks, as no block spans rows."""
        stem = name.rsplit(".", 1)[0].split(".", 2)[-1]
        if not self._needed or stem not in self._heads:
            return data
        return data.reshape(self._heads[stem], len(self._lanes), -1)[:, self._lanes].reshape(-1)


def _copied_metadata(path: Path) -> dict[str, WritableValue]:
    file = GgufFile(path)
    try:
        return {
            key: value.decode() if isinstance(value, StringArray) else _owned(value)
            for key, value in file.metadata.items()
            if not key.startswith(_NOT_COPIED)
        }
    finally:
        file.close()


def _owned(value: WritableValue) -> WritableValue:
    """A copy of what would be a view of the mapped file."""
    return value.copy() if isinstance(value, np.ndarray) else value


def _folder_metadata(source: LoadedModel) -> dict[str, WritableValue]:
    metadata = spec_metadata(source.spec, source.name)
    vocabulary = source.vocabulary
    if isinstance(vocabulary, HuggingFaceVocabulary):
        config = {
            "config": vocabulary.config,
            "eos_ids": vocabulary.eos_ids,
            "bos_id": vocabulary.bos_id,
            "chat_template": vocabulary.chat_template,
        }
        metadata[TOKENIZER_JSON] = _bytes(vocabulary.tokenizer_json)
        metadata[TOKENIZER_CONFIG] = _bytes(json.dumps(config))
    return metadata


def _bytes(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(text.encode(), dtype=np.uint8)
