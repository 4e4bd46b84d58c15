"""GGUF metadata of every variant becomes the right spec; what cannot be run is refused by name."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from factories.gguf_files import small_spec, write_gguf
from vivace.files.gguf_writer import WritableValue
from vivace.files.open import open_model
from vivace.types.errors import ModelFileError, UnsupportedModelError, VivaceError
from vivace.types.model import ModelSpec, RopeScaling


def _read(path: Path, spec: ModelSpec | None = None, **keys: WritableValue) -> ModelSpec:
    """Write a model with keys added (`__` stands for a dot), and read its spec back."""
    metadata = {key.replace("__", "."): value for key, value in keys.items()}
    write_gguf(path / "model.gguf", spec, metadata=metadata)
    model = open_model(path / "model.gguf")
    model.close()
    return model.spec


def test_mistral_is_a_llama_whose_layers_are_all_local(tmp_path: Path) -> None:
    spec = _read(tmp_path, llama__attention__sliding_window=32)
    assert spec.attention.windows == (32, 32, 32) and spec.attention.local_rope is None


def test_another_name_for_llama_is_understood(tmp_path: Path) -> None:
    spec = small_spec()
    keys = {f"mistral.{key}": value for key, value in {
        "block_count": 3, "context_length": 256, "embedding_length": 64, "feed_forward_length": 96,
        "attention.head_count": 4, "attention.head_count_kv": 2, "attention.layer_norm_rms_epsilon": 1e-6,
    }.items()}  # fmt: skip
    write_gguf(tmp_path / "model.gguf", spec, metadata={"general.architecture": "mistral", **keys})
    assert open_model(tmp_path / "model.gguf").spec.architecture == "llama"


def test_linear_scaling(tmp_path: Path) -> None:
    spec = _read(tmp_path, llama__rope__scaling__type="linear", llama__rope__scaling__factor=4.0)
    assert spec.attention.rope.scaling == RopeScaling("linear", 4.0)
    spec = _read(tmp_path, llama__rope__scale_linear=2.0)
    assert spec.attention.rope.scaling == RopeScaling("linear", 2.0)
    spec = _read(tmp_path, llama__rope__scaling__type="none", llama__rope__scaling__factor=2.0)
    assert spec.attention.rope.scaling is None


def test_yarn_scaling(tmp_path: Path) -> None:
    yarn: dict[str, WritableValue] = {
        "qwen2__rope__scaling__type": "yarn",
        "qwen2__rope__scaling__factor": 4.0,
        "qwen2__rope__scaling__original_context_length": 64,
    }
    spec = _read(tmp_path, small_spec("qwen2"), **yarn)
    assert spec.attention.rope.scaling == RopeScaling("yarn", 4.0, original_context_length=64)
    spec = _read(tmp_path, small_spec("qwen2"), **yarn, qwen2__rope__scaling__attn_factor=0.5)
    scaling = spec.attention.rope.scaling
    assert scaling is not None and scaling.attention_factor == pytest.approx(0.5 * (1 + 0.1 * np.log(4.0)))


def test_llama3_scaling_comes_as_a_tensor_of_factors(tmp_path: Path) -> None:
    factors = (1.0, 1.0, 1.5, 2.0, 4.0, 8.0, 8.0, 8.0)
    spec = small_spec()
    rope = replace(spec.attention.rope, frequency_factors=factors)
    spec = replace(spec, attention=replace(spec.attention, rope=rope), norm_eps=2**-20)
    assert _read(tmp_path, spec) == spec
    short = replace(spec, attention=replace(spec.attention, rope=replace(rope, frequency_factors=factors[:4])))
    with pytest.raises(ModelFileError, match="has 4 values for 16 rotated lanes"):
        _read(tmp_path, short)


def test_gemma_counts_five_local_layers_to_a_global_one(tmp_path: Path) -> None:
    spec = small_spec("gemma3", num_layers=7)
    plain = replace(spec, attention=replace(spec.attention, windows=(None,) * 7, local_rope=None))
    read = _read(tmp_path, plain, gemma3__attention__sliding_window=8)
    assert read.attention.windows == (8, 8, 8, 8, 8, None, 8)
    assert read.attention.local_rope is not None and read.attention.local_rope.base == 10_000.0
    keys: dict[str, WritableValue] = {"gemma3__attention__sliding_window": 8}
    read = _read(tmp_path, plain, **keys, gemma3__attention__sliding_window_pattern=2)
    assert read.attention.windows == (8, None, 8, None, 8, None, 8)
    read = _read(tmp_path, plain, **keys, gemma3__rope__freq_base_swa=20_000.0)
    assert read.attention.local_rope is not None and read.attention.local_rope.base == 20_000.0


def test_gemma_scales_globally_stretched_layers_only(tmp_path: Path) -> None:
    read = _read(
        tmp_path, small_spec("gemma3"), gemma3__rope__scaling__type="linear", gemma3__rope__scaling__factor=8.0
    )
    assert read.attention.rope.scaling == RopeScaling("linear", 8.0)
    assert read.attention.local_rope is not None and read.attention.local_rope.scaling is None


def test_the_largest_gemma_scales_queries_by_hidden_size(tmp_path: Path) -> None:
    spec = small_spec("gemma3", num_layers=62, hidden_size=32, ffn_size=32, num_heads=2, num_kv_heads=1, head_dim=8)
    assert _read(tmp_path, spec).attention.scale == pytest.approx(1 / np.sqrt(32 / 2))
    assert _read(tmp_path, spec, gemma3__attention__scale=0.25).attention.scale == 0.25


def test_equal_numbers_for_every_layer_count_as_one(tmp_path: Path) -> None:
    assert _read(tmp_path, llama__attention__head_count_kv=np.full(3, 2, np.uint32)).attention.num_kv_heads == 2
    with pytest.raises(ModelFileError, match="is not one whole number"):
        _read(tmp_path, llama__attention__head_count_kv=np.array([2, 4, 2], np.uint32))


@pytest.mark.parametrize(
    ("key", "value", "kind", "message"),
    [
        ("general.architecture", "mamba", UnsupportedModelError, "vivace runs llama, gemma3, qwen2, qwen3"),
        ("general.architecture", 3, ModelFileError, "general.architecture is not a string"),
        ("llama.block_count", 2, UnsupportedModelError, "'layers.2.|'blk.2."),
        ("llama.block_count", 4, ModelFileError, "lacks the tensor layers.3"),
        ("llama.block_count", np.uint64(1 << 60), ModelFileError, "claims 1152921504606846976 layers"),
        ("llama.block_count", "three", ModelFileError, "is not one whole number"),
        ("llama.block_count", True, ModelFileError, "is not one whole number"),
        ("llama.embedding_length", 128, ModelFileError, "has shape"),
        ("llama.attention.head_count", 0, ModelFileError, "has 0 heads"),
        ("llama.attention.head_count_kv", 3, ModelFileError, "impossible"),
        ("llama.attention.key_length", 0, UnsupportedModelError, "keys and values differ"),
        ("llama.attention.value_length", 8, UnsupportedModelError, "keys and values differ"),
        ("llama.attention.layer_norm_rms_epsilon", float("nan"), ModelFileError, "norm epsilon"),
        ("llama.rope.dimension_count", 15, ModelFileError, "rotated lanes"),
        ("llama.rope.freq_base", -1.0, ModelFileError, "rotary"),
        ("llama.rope.scaling.type", "longrope", UnsupportedModelError, "linear, llama3 and yarn"),
        ("llama.context_length", 0, ModelFileError, "context length"),
        ("llama.expert_count", 8, UnsupportedModelError, "mixture of experts"),
        ("llama.attention.sliding_window", -4, ModelFileError, "attention window"),
        ("split.count", 3, ModelFileError, "split into 3 parts"),
    ],
)
def test_impossible_settings_are_named(
    tmp_path: Path, key: str, value: WritableValue, kind: type[VivaceError], message: str
) -> None:
    with pytest.raises(kind, match=message) as caught:
        _read(tmp_path, **{key.replace(".", "__"): value})
    assert "\n" not in str(caught.value)
