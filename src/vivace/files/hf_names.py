"""Names of tensors in Hugging Face checkpoints, as vivace's (`types/weights.py`)."""

import re

from vivace.files.families import Family

# Checkpoints of models that also see put their text part under a longer prefix, and have parts we do not use.
_PREFIXES = ("model.language_model.", "language_model.model.", "model.")
_UNUSED = re.compile(r"(?:model\.)?(?:vision_tower|multi_modal_projector)\..+|.+\.rotary_emb\.inv_freq")
_LM_HEADS = ("lm_head.weight", "language_model.lm_head.weight")
_GLOBAL = {"embed_tokens.weight": "embed.weight", "norm.weight": "final_norm.weight"}
_LAYER = re.compile(r"layers\.(0|[1-9][0-9]{0,5})\.([a-z_.]+)\.(weight|bias)")
_MIDDLE = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn.q",
    "self_attn.k_proj": "attn.k",
    "self_attn.v_proj": "attn.v",
    "self_attn.q_norm": "attn.q_norm",
    "self_attn.k_norm": "attn.k_norm",
    "self_attn.o_proj": "attn.o",
    "post_attention_layernorm": "mlp_norm",
    "mlp.gate_proj": "mlp.gate",
    "mlp.up_proj": "mlp.up",
    "mlp.down_proj": "mlp.down",
}
_MIDDLE_WITH_POST_NORMS = {
    **_MIDDLE,
    "post_attention_layernorm": "attn_post_norm",
    "pre_feedforward_layernorm": "mlp_norm",
    "post_feedforward_layernorm": "mlp_post_norm",
}


def is_unused(name: str) -> bool:
    """Whether a tensor belongs to a part that text generation does not need."""
    return _UNUSED.fullmatch(name) is not None


def is_lm_head(name: str) -> bool:
    """Whether a tensor is the output projection."""
    return name in _LM_HEADS


def vivace_name(name: str, family: Family) -> str | None:
    """Our name of a tensor, or None when the family has no such tensor."""
    if is_lm_head(name):
        return "lm_head.weight"
    prefix = next((prefix for prefix in _PREFIXES if name.startswith(prefix)), None)
    if prefix is None:
        return None
    rest = name.removeprefix(prefix)
    match = _LAYER.fullmatch(rest)
    if match is None:
        return _GLOBAL.get(rest)
    layer, middle, kind = match.groups()
    ours = (_MIDDLE_WITH_POST_NORMS if family.post_norms else _MIDDLE).get(middle)
    return f"layers.{layer}.{ours}.{kind}" if ours else None


def stored_name(name: str, family: Family) -> str:
    """The name of one of our tensors in a checkpoint: the inverse of `vivace_name`."""
    stem, kind = name.rsplit(".", 1)
    if name == "lm_head.weight":
        return name
    if not stem.startswith("layers."):
        return "model." + next(theirs for theirs, ours in _GLOBAL.items() if ours == name)
    _, layer, middle = stem.split(".", 2)
    table = _MIDDLE_WITH_POST_NORMS if family.post_norms else _MIDDLE
    return f"model.layers.{layer}.{next(theirs for theirs, ours in table.items() if ours == middle)}.{kind}"
