"""What a model is, as numbers: enough to write its op list and to size its memory, whatever file it came from."""

from dataclasses import dataclass
from typing import Literal

Activation = Literal["silu", "gelu_tanh"]


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """How rotary frequencies are stretched past the trained context (fields unused by a kind keep their default)."""

    kind: Literal["linear", "llama3", "yarn"]
    factor: float
    original_context_length: int = 0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None


@dataclass(frozen=True, slots=True)
class RopeSpec:
    """Rotary position embedding (Su et al., 2021).

    `interleaved` pairs lanes (0,1), (2,3) ... as GGUF's `llama` tensors are stored; otherwise lane i pairs with lane
    i + dim/2. `frequency_factors` (length dim/2) divide the frequencies, as GGUF's `rope_freqs.weight` does.
    """

    base: float
    dim: int
    interleaved: bool
    scaling: RopeScaling | None = None
    frequency_factors: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class AttentionSpec:
    """Attention of one model: MHA (kv heads = heads), GQA (fewer) or MQA (one).

    `windows` has one entry a layer: None attends to everything before, N to the last N positions, itself included.
    Layers with a window use `local_rope` when it is given.
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    scale: float
    rope: RopeSpec
    windows: tuple[int | None, ...]
    local_rope: RopeSpec | None = None
    qkv_bias: bool = False
    qk_norm: bool = False

    @property
    def local_layers(self) -> tuple[bool, ...]:
        """Which layers keep keys and values apart from the others: those with a window, where others have none."""
        return tuple(None in self.windows and window is not None for window in self.windows)

    @property
    def local_window(self) -> int:
        """Positions that the local layers see at most; 0 when there are none."""
        return max((window or 0 for window in self.windows), default=0) if any(self.local_layers) else 0


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A decoder-only transformer with gated MLP and RMS norms."""

    architecture: str
    vocab_size: int
    hidden_size: int
    num_layers: int
    ffn_size: int
    context_length: int
    norm_eps: float
    activation: Activation
    attention: AttentionSpec
    tied_embeddings: bool
    embed_scale: float = 1.0
