"""Models of well-known shapes with random weights, for speed on sizes whose weights no package ships.

A file is as large and as structured as the real one: the same layers, vocabulary and block formats, with random codes
and scales that keep activations in range. The tokenizer is that of the default model, filled up to the vocabulary.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vivace.cli.compare.environments import peers_folder
from vivace.files.cache_folder import make_folder
from vivace.files.gguf import GgufFile
from vivace.files.gguf_values import StringArray
from vivace.files.gguf_writer import TensorToWrite, WritableValue, write_gguf_file
from vivace.numerics.formats import num_bytes
from vivace.types.errors import ConfigError
from vivace.types.weights import TensorFormat

_WEIGHT_DEVIATION = 0.02
_UNUSED_TOKEN = 5  # GGUF's token type
_SEED = 18


@dataclass(frozen=True, slots=True)
class Shape:
    """The numbers of one model; embeddings are tied."""

    architecture: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    rope_base: float


SHAPES: Mapping[str, Shape] = {
    "qwen2.5-0.5b": Shape("qwen2", 896, 24, 14, 2, 64, 4864, 151_936, 1e6),
    "qwen2.5-1.5b": Shape("qwen2", 1536, 28, 12, 2, 128, 8960, 151_936, 1e6),
    "llama-3.2-1b": Shape("llama", 2048, 16, 32, 8, 64, 8192, 128_256, 5e5),
    "llama-3.2-3b": Shape("llama", 3072, 28, 24, 8, 128, 8192, 128_256, 5e5),
}

FORMATS = (TensorFormat.Q4_0, TensorFormat.Q4_1, TensorFormat.Q4_K, TensorFormat.Q8_0)
_FALLBACKS = {TensorFormat.Q4_K: TensorFormat.Q5_0}  # rows that 256 does not divide, as llama.cpp does it
_FILE_TYPES = {TensorFormat.Q4_0: 2, TensorFormat.Q4_1: 3, TensorFormat.Q8_0: 7, TensorFormat.Q4_K: 15}

PREFIX = "shape:"
RANDOM = "random-"
"""What the names of files with random weights begin with."""


def is_shape(model: str) -> bool:
    """Whether a --model names a shape."""
    return model.startswith(PREFIX)


def shape_model(model: str, vocabulary: Path) -> Path:
    """The file of `shape:NAME:FORMAT`, made when it is not there yet.

    Args:
        model: as on the command line.
        vocabulary: a GGUF file whose tokenizer is taken.

    Raises:
        ConfigError: there is no such shape, or it is not made in that format.
        StorageError: the cache folder cannot be written.
    """
    name, _, wanted = model.removeprefix(PREFIX).partition(":")
    if name not in SHAPES or wanted not in FORMATS:
        raise ConfigError(
            f"There is no model {model!r}.",
            f"Give {PREFIX}NAME:FORMAT, with one of {', '.join(SHAPES)} and one of {', '.join(FORMATS)}.",
        )
    format = TensorFormat(wanted)
    folder = peers_folder() / "models"
    make_folder(folder)
    path = folder / f"{RANDOM}{name}-{format}.gguf"
    if not path.exists():
        write_shape(path, SHAPES[name], format, vocabulary)
    return path


def write_shape(path: Path, shape: Shape, format: TensorFormat, vocabulary: Path) -> None:
    """Write a shape as a GGUF file; the bytes depend on shape and format alone.

    Args:
        path: the file to make; its folder exists.
        shape: the numbers.
        format: of the matrices in the blocks; embeddings are Q8_0, norms and biases F32.
        vocabulary: a GGUF file whose tokenizer is taken.
    """
    tensors = [_matrix("token_embd.weight", (shape.vocab, shape.hidden), TensorFormat.Q8_0)]
    for layer in range(shape.layers):
        tensors += [_tensor(f"blk.{layer}.{name}", dims, format) for name, dims in _layer(shape).items()]
    tensors.append(_tensor("output_norm.weight", (shape.hidden,), format))
    write_gguf_file(path, _metadata(shape, format, vocabulary), tensors)


def _layer(shape: Shape) -> dict[str, tuple[int, ...]]:
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    biases = {"attn_q.bias": (queries,), "attn_k.bias": (keys,), "attn_v.bias": (keys,)}
    return {
        "attn_norm.weight": (shape.hidden,),
        "attn_q.weight": (queries, shape.hidden),
        "attn_k.weight": (keys, shape.hidden),
        "attn_v.weight": (keys, shape.hidden),
        "attn_output.weight": (shape.hidden, queries),
        "ffn_norm.weight": (shape.hidden,),
        "ffn_gate.weight": (shape.ffn, shape.hidden),
        "ffn_up.weight": (shape.ffn, shape.hidden),
        "ffn_down.weight": (shape.hidden, shape.ffn),
        **(biases if shape.architecture == "qwen2" else {}),
    }


def _metadata(shape: Shape, format: TensorFormat, vocabulary: Path) -> dict[str, WritableValue]:
    numbers: dict[str, WritableValue] = {
        "block_count": shape.layers,
        "context_length": 4096,
        "embedding_length": shape.hidden,
        "feed_forward_length": shape.ffn,
        "attention.head_count": shape.heads,
        "attention.head_count_kv": shape.kv_heads,
        "attention.key_length": shape.head_dim,
        "attention.value_length": shape.head_dim,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "rope.freq_base": shape.rope_base,
        "rope.dimension_count": shape.head_dim,
        "vocab_size": shape.vocab,
    }
    return {
        "general.architecture": shape.architecture,
        "general.name": _title(shape, format),
        "general.file_type": _FILE_TYPES[format],
        "general.quantization_version": 2,
        **{f"{shape.architecture}.{key}": value for key, value in numbers.items()},
        **_tokenizer(vocabulary, shape.vocab),
    }


def _title(shape: Shape, format: TensorFormat) -> str:
    return f"random weights, {shape.layers} layers of {shape.hidden}, {format}"


def _tokenizer(vocabulary: Path, size: int) -> dict[str, WritableValue]:
    file = GgufFile(vocabulary)
    try:
        kept: dict[str, WritableValue] = {
            key: value.decode() if isinstance(value, StringArray) else value
            for key, value in file.metadata.items()
            if key.startswith("tokenizer.")
        }
        tokens, types = kept["tokenizer.ggml.tokens"], kept["tokenizer.ggml.token_type"]
        assert isinstance(tokens, list) and isinstance(types, np.ndarray)
        missing = size - len(tokens)
        kept["tokenizer.ggml.tokens"] = [*tokens, *(f"<unused_{number}>" for number in range(missing))]
        kept["tokenizer.ggml.token_type"] = np.concatenate((types, np.full(missing, _UNUSED_TOKEN, types.dtype)))
        return kept
    finally:
        file.close()


def _tensor(name: str, shape: tuple[int, ...], format: TensorFormat) -> TensorToWrite:
    if len(shape) == 1:
        value = 1.0 if name.endswith("norm.weight") else 0.0
        return TensorToWrite(name, shape, TensorFormat.F32, lambda: np.full(shape, value, np.float32).view(np.uint8))
    fits = shape[1] % 256 == 0 or format not in _FALLBACKS
    return _matrix(name, shape, format if fits else _FALLBACKS[format])


def _matrix(name: str, shape: tuple[int, ...], format: TensorFormat) -> TensorToWrite:
    return TensorToWrite(name, shape, format, partial(random_blocks, name, shape, format))


def random_blocks(name: str, shape: tuple[int, ...], format: TensorFormat) -> NDArray[np.uint8]:
    """Blocks of random codes whose values have a mean near 0 and a deviation near 0.02; uint8 (bytes,)."""
    generator = np.random.default_rng([_SEED, *name.encode()])
    layout = _LAYOUTS[format]
    blocks = num_bytes(format, shape) // layout.block_bytes
    data = np.frombuffer(generator.bytes(blocks * layout.block_bytes), dtype=np.uint8).reshape(blocks, -1).copy()
    for offset, value in layout.scales.items():
        data[:, offset : offset + 2] = np.frombuffer(np.float16(value).tobytes(), np.uint8)
    return data.reshape(-1)


@dataclass(frozen=True, slots=True)
class _Layout:
    block_bytes: int
    scales: Mapping[int, float]  # offset of a float16 to its value


def _evenly(levels: int) -> float:
    """The scale at which codes that take every level alike have the deviation wanted."""
    return _WEIGHT_DEVIATION / math.sqrt((levels * levels - 1) / 12)


_K_SCALE = _evenly(16) / 31.5  # a super-block's scales and minimums are random 6-bit numbers, 31.5 on average

_LAYOUTS: Mapping[TensorFormat, _Layout] = {
    TensorFormat.Q4_0: _Layout(18, {0: _evenly(16)}),
    TensorFormat.Q4_1: _Layout(20, {0: _evenly(16), 2: -7.5 * _evenly(16)}),
    TensorFormat.Q5_0: _Layout(22, {0: _evenly(32)}),
    TensorFormat.Q8_0: _Layout(34, {0: _evenly(256)}),
    TensorFormat.Q4_K: _Layout(144, {0: _K_SCALE, 2: 7.5 * _K_SCALE}),
}
