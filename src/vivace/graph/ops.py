"""The kinds of op a model is written in. An op names its input and output buffers and its weights; it holds no data.

Buffers are float32 (rows, width). Every buffer is written by exactly one op. Fused kinds at the end are written only by
passes; the `reference` executor runs them too, so a pass can be checked against the list it came from.
"""

from dataclasses import dataclass

from vivace.types.input_scheme import InputGrid
from vivace.types.model import Activation, RopeSpec


@dataclass(frozen=True, slots=True)
class Embed:
    """out = weight[token_ids] * scale."""

    out: str
    weight: str
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class RmsNorm:
    """out = x / sqrt(mean(x^2) + eps) * weight, over `num_groups` equal pieces of the row (1: the whole row).

    With num_groups > 1 it is the per-head norm of queries and keys; the weight then has width / num_groups entries.
    """

    out: str
    x: str
    weight: str
    eps: float
    num_groups: int = 1


@dataclass(frozen=True, slots=True)
class Linear:
    """out = x @ weight.T (+ bias)."""

    out: str
    x: str
    weight: str
    bias: str | None = None


@dataclass(frozen=True, slots=True)
class Rope:
    """out = x with each head of `head_dim` lanes rotated by the row's position."""

    out: str
    x: str
    num_heads: int
    head_dim: int
    rope: RopeSpec


@dataclass(frozen=True, slots=True)
class Attention:
    """Write k and v of the rows into the KV pages of `layer`, then attend causally (within `window` if given)."""

    out: str
    q: str
    k: str
    v: str
    layer: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    scale: float
    window: int | None = None


@dataclass(frozen=True, slots=True)
class GatedActivation:
    """out = activation(gate) * up."""

    out: str
    gate: str
    up: str
    activation: Activation


@dataclass(frozen=True, slots=True)
class Add:
    """out = a + b."""

    out: str
    a: str
    b: str


@dataclass(frozen=True, slots=True)
class SelectRows:
    """out = the rows of x whose logits are wanted (batch.logit_rows)."""

    out: str
    x: str


@dataclass(frozen=True, slots=True)
class FusedLinear:
    """Several linears over one input in one pass: outs[i] = x @ weights[i].T (+ biases[i])."""

    outs: tuple[str, ...]
    x: str
    weights: tuple[str, ...]
    biases: tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class AddRmsNorm:
    """total = a + b; out = RmsNorm(total)."""

    total: str
    out: str
    a: str
    b: str
    weight: str
    eps: float


@dataclass(frozen=True, slots=True)
class Cast:
    """out = x rounded to `precision`, a row of numerics.roundings.ROUNDINGS; float32 still. Written by cast_inputs.

    `grid` is what its codes span, where they do not span each group of columns by itself.
    """

    out: str
    x: str
    precision: str
    grid: InputGrid | None = None


Op = Embed | RmsNorm | Linear | Rope | Attention | GatedActivation | Add | SelectRows | FusedLinear | AddRmsNorm | Cast
