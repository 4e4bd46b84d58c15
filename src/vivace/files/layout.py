"""Which tensors a model must have, and of what shape, given its spec: checked once, when a file is opened."""

import math
from collections.abc import Iterable, Mapping

from vivace.files.families import FAMILIES
from vivace.types.errors import ModelFileError, UnsupportedModelError
from vivace.types.model import ModelSpec, RopeSpec

MAX_SIZE = 1 << 30  # of any single dimension: keeps every later product far from overflow

Shapes = dict[str, tuple[int, ...]]


def expected_tensors(spec: ModelSpec) -> Shapes:
    """Name (see `types/weights.py`) and row-major shape of every tensor of a model."""
    shapes: Shapes = {
        "embed.weight": (spec.vocab_size, spec.hidden_size),
        "final_norm.weight": (spec.hidden_size,),
    }
    if not spec.tied_embeddings:
        shapes["lm_head.weight"] = (spec.vocab_size, spec.hidden_size)
    layer = _layer_tensors(spec)
    for index in range(spec.num_layers):
        shapes.update({f"layers.{index}.{name}": shape for name, shape in layer.items()})
    return shapes


def _layer_tensors(spec: ModelSpec) -> Shapes:
    attention = spec.attention
    hidden, ffn = spec.hidden_size, spec.ffn_size
    query = attention.num_heads * attention.head_dim
    key = attention.num_kv_heads * attention.head_dim
    shapes: Shapes = {
        "attn_norm.weight": (hidden,),
        "attn.q.weight": (query, hidden),
        "attn.k.weight": (key, hidden),
        "attn.v.weight": (key, hidden),
        "attn.o.weight": (hidden, query),
        "mlp_norm.weight": (hidden,),
        "mlp.gate.weight": (ffn, hidden),
        "mlp.up.weight": (ffn, hidden),
        "mlp.down.weight": (hidden, ffn),
    }
    if attention.qkv_bias:
        shapes |= {"attn.q.bias": (query,), "attn.k.bias": (key,), "attn.v.bias": (key,)}
    if attention.qk_norm:
        shapes |= {"attn.q_norm.weight": (attention.head_dim,), "attn.k_norm.weight": (attention.head_dim,)}
    if FAMILIES[spec.architecture].post_norms:
        shapes |= {"attn_post_norm.weight": (hidden,), "mlp_post_norm.weight": (hidden,)}
    return shapes


def check_tensors(spec: ModelSpec, found: Mapping[str, tuple[int, ...]]) -> None:
    """Compare a file's tensors, under vivace's names, with what the spec asks for.

    Raises:
        ModelFileError: a tensor is missing or has another shape.
        UnsupportedModelError: there is a tensor that the architecture does not have.
    """
    expected = expected_tensors(spec)
    for name, shape in expected.items():
        if name not in found:
            raise ModelFileError(f"The model file lacks the tensor {name}.", "It is incomplete; get it again.")
        if found[name] != shape:
            raise ModelFileError(
                f"The tensor {name} has shape {found[name]}, but the model's sizes ask for {shape}.",
                "Metadata and tensors do not belong together; get the file again.",
            )
    refuse_unknown(spec.architecture, (name for name in found if name not in expected))


def refuse_unknown(architecture: str, names: Iterable[str]) -> None:
    """Refuse tensors that would be left out silently.

    Raises:
        UnsupportedModelError: `names` is not empty.
    """
    for name in names:
        raise UnsupportedModelError(
            f"The model has a tensor {name[:80]!a} that the architecture {architecture} does not use.",
            "This variant of the architecture is not supported; choose another model.",
        )


def check_spec(spec: ModelSpec) -> None:
    """Refuse sizes that no executor could run.

    Raises:
        ModelFileError: the message names the size.
    """
    attention = spec.attention
    sizes = {
        "vocabulary size": spec.vocab_size,
        "hidden size": spec.hidden_size,
        "feed-forward size": spec.ffn_size,
        "number of layers": spec.num_layers,
        "context length": spec.context_length,
        "number of heads": attention.num_heads,
        "number of key/value heads": attention.num_kv_heads,
        "head size": attention.head_dim,
    }
    for name, size in sizes.items():
        if not 1 <= size <= MAX_SIZE:
            raise _impossible(name, size)
    if attention.num_heads % attention.num_kv_heads:
        raise _impossible("number of key/value heads", f"{attention.num_kv_heads} for {attention.num_heads} heads")
    for window in attention.windows:
        if window is not None and not 1 <= window <= MAX_SIZE:
            raise _impossible("attention window", window)
    for name, number in (("norm epsilon", spec.norm_eps), ("attention scale", attention.scale)):
        if not (math.isfinite(number) and number > 0):
            raise _impossible(name, number)
    for rope in (attention.rope, attention.local_rope):
        if rope is not None:
            _check_rope(rope, attention.head_dim)


def _check_rope(rope: RopeSpec, head_dim: int) -> None:
    if not 2 <= rope.dim <= head_dim or rope.dim % 2:
        raise _impossible("number of rotated lanes", f"{rope.dim} of {head_dim}")
    numbers = [rope.base, *(rope.frequency_factors or ())]
    scaling = rope.scaling
    if scaling is not None:
        numbers += [scaling.factor, scaling.high_freq_factor, scaling.low_freq_factor]
        numbers += [scaling.beta_fast, scaling.beta_slow, scaling.attention_factor or 1.0]
        if scaling.kind != "linear" and not 1 <= scaling.original_context_length <= MAX_SIZE:
            raise _impossible("original context length", scaling.original_context_length)
        if scaling.kind == "llama3" and scaling.high_freq_factor <= scaling.low_freq_factor:
            raise _impossible("high frequency factor", scaling.high_freq_factor)
    for number in numbers:
        if not (math.isfinite(number) and number > 0):
            raise _impossible("rotary setting", number)
    if rope.base <= 1:
        raise _impossible("rotary base", rope.base)


def _impossible(name: str, value: object) -> ModelFileError:
    return ModelFileError(f"The model's {name} is {value}, which is impossible.", "Get the file again.")
