"""config.json of real and possible checkpoints, in the layouts of several years."""

from typing import Any

import pytest

from vivace.files.hf_spec import read_hf_spec
from vivace.files.json_object import JsonObject
from vivace.types.errors import UnsupportedModelError
from vivace.types.model import ModelSpec, RopeScaling, RopeSpec

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "vocab_size": 320,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
}
GEMMA = {**LLAMA, "architectures": ["Gemma3ForCausalLM"], "num_hidden_layers": 7, "head_dim": 16}
LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 512,
}
LLAMA3_SCALING = RopeScaling("llama3", 8.0, original_context_length=512, low_freq_factor=1.0, high_freq_factor=4.0)


def _read(base: dict[str, Any], **fields: Any) -> ModelSpec:
    return read_hf_spec(JsonObject({**base, **fields}, "config.json"), has_lm_head=True)


def test_silent_fields_have_the_defaults_of_transformers() -> None:
    spec = _read(LLAMA)
    assert spec.attention.num_kv_heads == 4 and spec.attention.head_dim == 16
    assert spec.attention.rope == RopeSpec(base=10_000.0, dim=16, interleaved=False)
    assert not spec.tied_embeddings and spec.activation == "silu"
    assert _read(GEMMA, num_key_value_heads=None).attention.num_kv_heads == 4
    assert _read(GEMMA).tied_embeddings and _read(GEMMA).activation == "gelu_tanh"


@pytest.mark.parametrize("kind_field", ["type", "rope_type"])
def test_old_layout_of_rotary_scaling(kind_field: str) -> None:
    spec = _read(LLAMA, rope_theta=500_000.0, rope_scaling={kind_field: "llama3", **LLAMA3})
    assert spec.attention.rope == RopeSpec(500_000.0, 16, interleaved=False, scaling=LLAMA3_SCALING)


def test_new_layout_of_rotary_scaling() -> None:
    spec = _read(LLAMA, rope_parameters={"rope_theta": 500_000.0, "rope_type": "llama3", **LLAMA3})
    assert spec.attention.rope == RopeSpec(500_000.0, 16, interleaved=False, scaling=LLAMA3_SCALING)


def test_linear_scaling_by_one_is_none() -> None:
    assert _read(LLAMA, rope_scaling={"rope_type": "linear", "factor": 1.0}).attention.rope.scaling is None


def test_yarn_lengthens_a_context_that_the_config_left_short() -> None:
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048}
    spec = _read(LLAMA, rope_scaling=yarn)
    assert spec.attention.rope.scaling == RopeScaling("yarn", 4.0, original_context_length=2048)
    assert spec.context_length == 8192
    assert _read(LLAMA, rope_scaling=yarn, max_position_embeddings=10_000).context_length == 10_000


def test_yarn_takes_its_attention_factor_from_two_scales() -> None:
    yarn = {"rope_type": "yarn", "factor": 40.0, "mscale": 1.0, "mscale_all_dim": 1.0}
    scaling = _read(LLAMA, rope_scaling=yarn).attention.rope.scaling
    assert scaling is not None and scaling.attention_factor == 1.0
    scaling = _read(LLAMA, rope_scaling={**yarn, "attention_factor": 1.25}).attention.rope.scaling
    assert scaling is not None and scaling.attention_factor == 1.25


def test_part_of_a_head_may_rotate() -> None:
    assert _read(LLAMA, partial_rotary_factor=0.5).attention.rope.dim == 8


def test_gemma_in_the_old_layout() -> None:
    spec = _read(
        GEMMA,
        rope_theta=1e6,
        rope_local_base_freq=10_000.0,
        rope_scaling={"rope_type": "linear", "factor": 8.0},
        sliding_window=16,
        query_pre_attn_scalar=48,
    )
    assert spec.attention.windows == (16, 16, 16, 16, 16, None, 16)
    assert spec.attention.rope == RopeSpec(1e6, 16, interleaved=False, scaling=RopeScaling("linear", 8.0))
    assert spec.attention.local_rope == RopeSpec(10_000.0, 16, interleaved=False)
    assert spec.attention.scale == pytest.approx(48**-0.5)
    assert spec.embed_scale == 8.0


def test_gemma_in_the_new_layout() -> None:
    spec = _read(
        GEMMA,
        rope_parameters={
            "full_attention": {"rope_theta": 1e6, "rope_type": "linear", "factor": 8.0},
            "sliding_attention": {"rope_theta": 20_000.0, "rope_type": "default"},
        },
        layer_types=["sliding_attention", "full_attention"] * 3 + ["full_attention"],
        sliding_window=16,
    )
    assert spec.attention.windows == (16, None, 16, None, 16, None, None)
    assert spec.attention.rope == RopeSpec(1e6, 16, interleaved=False, scaling=RopeScaling("linear", 8.0))
    assert spec.attention.local_rope == RopeSpec(20_000.0, 16, interleaved=False)


def test_gemma_with_another_pattern() -> None:
    assert _read(GEMMA, sliding_window=16, sliding_window_pattern=2).attention.windows[:4] == (16, None, 16, None)


def test_mistral_attends_locally_everywhere_unless_told_otherwise() -> None:
    mistral = {**LLAMA, "architectures": ["MistralForCausalLM"], "num_key_value_heads": 2}
    assert _read(mistral, sliding_window=128).attention.windows == (128,) * 4
    assert _read(mistral, sliding_window=None).attention.windows == (None,) * 4
    assert _read(mistral).attention.windows == (4096,) * 4
    assert _read(mistral).attention.local_rope is None


def test_qwen_attends_locally_only_when_asked_and_only_in_late_layers() -> None:
    qwen = {**LLAMA, "architectures": ["Qwen2ForCausalLM"], "sliding_window": 64, "max_window_layers": 3}
    assert _read(qwen).attention.windows == (None,) * 4
    assert _read(qwen, use_sliding_window=True).attention.windows == (None, None, None, 64)
    assert _read(qwen).attention.qkv_bias and not _read(qwen).attention.qk_norm
    qwen3 = _read({**LLAMA, "architectures": ["Qwen3ForCausalLM"]})
    assert qwen3.attention.head_dim == 128 and qwen3.attention.qk_norm and not qwen3.attention.qkv_bias


def test_bidirectional_gemma_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="use_bidirectional_attention"):
        _read(GEMMA, use_bidirectional_attention=True)
