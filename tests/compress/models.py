"""A small model with something to lose: inputs of very different size, so that methods that look at them win."""

from pathlib import Path

import numpy as np

from factories.gguf_files import small_spec, write_gguf
from factories.tiny_models import ArrayWeights, random_weights
from vivace.execute.score import Tokens
from vivace.types.model import ModelSpec


def uneven_model(architecture: str = "llama", seed: int = 0) -> tuple[ModelSpec, ArrayWeights]:
    """Norm weights are log-normal, so that a few channels carry most of every linear's input."""
    spec = small_spec(architecture)
    weights = random_weights(spec, seed)
    generator = np.random.default_rng(seed + 1)
    for name, values in weights.arrays.items():
        if name.endswith(("attn_norm.weight", "mlp_norm.weight")):
            weights.arrays[name] = np.exp(1.2 * generator.standard_normal(values.shape)).astype(np.float32)
    if spec.tied_embeddings:  # logits of unit size, as trained models have them at their surest
        weights.arrays["embed.weight"] /= 4
    return spec, weights


def write_uneven_gguf(path: Path, architecture: str = "llama") -> Path:
    spec, weights = uneven_model(architecture)
    write_gguf(path, spec, weights=weights)
    return path


def random_windows(spec: ModelSpec, count: int = 6, size: int = 48, seed: int = 0) -> list[Tokens]:
    generator = np.random.default_rng(seed)
    return [generator.integers(5, spec.vocab_size, size).astype(np.int32) for _ in range(count)]
