"""The model families vivace reads, a row each: what a family fixes that its files do not say.

`graph/` writes the op list of an architecture; this table only tells readers how its files store it.
"""

from dataclasses import dataclass

from vivace.types.errors import UnsupportedModelError
from vivace.types.model import Activation


@dataclass(frozen=True, slots=True)
class Family:
    """One row.

    Attributes:
        architecture: `general.architecture` of a GGUF file, and `ModelSpec.architecture`.
        classes: names in `architectures` of a Hugging Face config.json.
        gguf_interleaved_rope: GGUF files of the family store query and key rows so that lanes (0,1), (2,3) pair up.
        qkv_bias: query, key and value projections always have a bias.
        qk_norm: queries and keys are normalised per head.
        post_norms: the outputs of attention and MLP are normalised before they are added.
        scaled_embeddings: embeddings are multiplied by the square root of the hidden size.
        stored_norm_offset: what a Hugging Face file's norm weights lack (GGUF files already contain it).
        local_rope_base: rotary base of layers with a window, None for the same as elsewhere.
        local_layers_per_global: how many layers with a window stand before each one without.
        aliases: other spellings of `general.architecture`.
    """

    architecture: str
    classes: tuple[str, ...]
    activation: Activation = "silu"
    gguf_interleaved_rope: bool = False
    qkv_bias: bool = False
    qk_norm: bool = False
    post_norms: bool = False
    scaled_embeddings: bool = False
    stored_norm_offset: float = 0.0
    local_rope_base: float | None = None
    local_layers_per_global: int = 0
    aliases: tuple[str, ...] = ()


FAMILIES: dict[str, Family] = {
    row.architecture: row
    for row in (
        Family(
            "llama",
            classes=("LlamaForCausalLM", "MistralForCausalLM"),
            gguf_interleaved_rope=True,
            aliases=("mistral",),
        ),
        Family(
            "gemma3",
            classes=("Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"),
            activation="gelu_tanh",
            qk_norm=True,
            post_norms=True,
            scaled_embeddings=True,
            stored_norm_offset=1.0,
            local_rope_base=10_000.0,
            local_layers_per_global=5,
        ),
        Family("qwen2", classes=("Qwen2ForCausalLM",), qkv_bias=True),
        Family("qwen3", classes=("Qwen3ForCausalLM",), qk_norm=True),
    )
}


def family_of_architecture(name: str) -> Family:
    """The family of a GGUF file's `general.architecture`.

    Raises:
        UnsupportedModelError: vivace does not know it; the message lists those it knows.
    """
    for row in FAMILIES.values():
        if name == row.architecture or name in row.aliases:
            return row
    raise UnsupportedModelError(
        f"The model's architecture is {name[:60]!a}.", f"vivace runs {', '.join(FAMILIES)}; choose such a model."
    )


def family_of_class(names: list[str]) -> Family:
    """The family of the `architectures` of a config.json.

    Raises:
        UnsupportedModelError: vivace knows none of the names; the message lists those it knows.
    """
    for row in FAMILIES.values():
        if any(name in row.classes for name in names):
            return row
    known = ", ".join(name for row in FAMILIES.values() for name in row.classes)
    shown = ", ".join(names)[:200] or "not given"
    raise UnsupportedModelError(f"The model's class is {shown}.", f"vivace runs {known}; choose such a model.")


def habitual_windows(window: int, period: int, num_layers: int, first_local: int = 0) -> tuple[int | None, ...]:
    """Attention windows of models that do not list them.

    Args:
        window: positions that a local layer sees.
        period: every `period`-th layer attends globally; 0: none does.
        num_layers: entries to make.
        first_local: layers before this one attend globally.
    """

    def is_local(layer: int) -> bool:
        return layer >= first_local and not (period > 0 and (layer + 1) % period == 0)

    return tuple(window if is_local(layer) else None for layer in range(num_layers))
