"""Reads the llama2.c layout (a header of seven integers, then float32 tensors): a trained model of one megabyte.

The file is not part of the repository; tests that use it are skipped where it is not found.
"""

import os
from pathlib import Path

import numpy as np
import pytest

from factories.tiny_models import ArrayWeights
from vivace.types.model import AttentionSpec, ModelSpec, RopeSpec

_HEADER = 7


def find_stories() -> Path:
    """The file in the folder that VIVACE_TEST_TINY names, or beside the checkout."""
    beside = Path(__file__).parents[3] / "shared" / "data" / "tiny"
    path = Path(os.environ.get("VIVACE_TEST_TINY", beside)) / "stories260K.bin"
    if not path.is_file():
        pytest.skip("stories260K.bin is not here; VIVACE_TEST_TINY may name its folder")
    return path


def read_llama2c(path: Path) -> tuple[ModelSpec, ArrayWeights]:
    """The model in vivace's names; queries and keys pair neighbouring lanes."""
    data = path.read_bytes()
    dim, hidden, layers, heads, kv_heads, vocab, context = np.frombuffer(data, "<i4", _HEADER).tolist()
    floats = np.frombuffer(data, "<f4", offset=4 * _HEADER)
    size, position = dim // heads, 0

    def take(*shape: int) -> np.ndarray:
        nonlocal position
        count = int(np.prod(shape))
        position += count
        return floats[position - count : position].reshape(shape).copy()

    shapes = (
        ("attn_norm", (dim,)),
        ("attn.q", (dim, dim)),
        ("attn.k", (kv_heads * size, dim)),
        ("attn.v", (kv_heads * size, dim)),
        ("attn.o", (dim, dim)),
        ("mlp_norm", (dim,)),
        ("mlp.gate", (hidden, dim)),
        ("mlp.down", (dim, hidden)),
        ("mlp.up", (hidden, dim)),
    )
    arrays = {"embed.weight": take(abs(vocab), dim)}
    for name, shape in shapes:
        for layer, values in enumerate(take(layers, *shape)):
            arrays[f"layers.{layer}.{name}.weight"] = values
    arrays["final_norm.weight"] = take(dim)
    rope = RopeSpec(base=10_000.0, dim=size, interleaved=True)
    attention = AttentionSpec(heads, kv_heads, size, size**-0.5, rope, (None,) * layers)
    spec = ModelSpec("llama", abs(vocab), dim, layers, hidden, context, 1e-5, "silu", attention, tied_embeddings=True)
    return spec, ArrayWeights(arrays)
