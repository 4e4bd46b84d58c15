"""Small models with random weights, in memory: for tests of graphs and executors. Same seed, same model."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vivace.graph.weights import weight_shapes
from vivace.types.errors import ModelFileError
from vivace.types.model import AttentionSpec, ModelSpec, RopeSpec
from vivace.types.weights import TensorFormat, TensorInfo

ARCHITECTURES = ("llama", "gemma3", "qwen2", "qwen3")


def tiny_spec(
    architecture: str = "llama", *, num_heads: int = 4, num_kv_heads: int = 2, num_layers: int = 3, head_dim: int = 16
) -> ModelSpec:
    """A model of a few thousand weights, shaped as its family is."""
    gemma = architecture == "gemma3"
    rope = RopeSpec(base=10_000.0, dim=head_dim, interleaved=architecture == "llama")
    attention = AttentionSpec(
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        scale=head_dim**-0.5,
        rope=replace(rope, base=1_000_000.0) if gemma else rope,
        windows=tuple(5 if gemma and layer % 3 != 2 else None for layer in range(num_layers)),
        local_rope=rope if gemma else None,
        qkv_bias=architecture == "qwen2",
        qk_norm=architecture in ("qwen3", "gemma3"),
    )
    return ModelSpec(
        architecture=architecture,
        vocab_size=97,
        hidden_size=48,
        num_layers=num_layers,
        ffn_size=80,
        context_length=256,
        norm_eps=1e-6,
        activation="gelu_tanh" if gemma else "silu",
        attention=attention,
        tied_embeddings=architecture in ("gemma3", "qwen2"),
        embed_scale=48**0.5 if gemma else 1.0,
    )


class ArrayWeights:
    """A WeightSource over float32 arrays in memory."""

    def __init__(self, arrays: dict[str, NDArray[np.float32]]) -> None:
        self.arrays = arrays

    def names(self) -> Sequence[str]:
        return list(self.arrays)

    def info(self, name: str) -> TensorInfo:
        if name not in self.arrays:
            raise ModelFileError(f"no tensor {name!r}")
        array = self.arrays[name]
        return TensorInfo(name, array.shape, TensorFormat.F32, array.nbytes)

    def raw(self, name: str) -> NDArray[np.uint8]:
        return np.ascontiguousarray(self.arrays[name]).reshape(-1).view(np.uint8)

    def dequantize(self, name: str) -> NDArray[np.float32]:
        return self.arrays[name].copy()

    def release(self, name: str) -> None:
        pass

    def close(self) -> None:
        self.arrays = {}


def random_weights(spec: ModelSpec, seed: int = 0) -> ArrayWeights:
    """Weights that keep activations near unit size, so that every layer matters to the logits."""
    generator = np.random.default_rng(seed)
    arrays: dict[str, NDArray[np.float32]] = {}
    for name, shape in weight_shapes(spec).items():
        values = generator.standard_normal(shape)
        if "norm" in name:
            values = 1.0 + 0.2 * values
        elif name.endswith(".bias"):
            values = 0.5 * values
        elif name != "embed.weight":
            values = values / np.sqrt(shape[-1])
        arrays[name] = values.astype(np.float32)
    return ArrayWeights(arrays)
