"""Hugging Face folders: safetensors whole and split, tokenizer files, and what is wrong with them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from factories.hf_checkpoints import CONFIGS, write_checkpoint
from factories.hf_folders import hf_spec, safetensors_bytes, write_hf_folder
from factories.tiny_models import ARCHITECTURES
from vivace.files.open import open_model
from vivace.files.safetensors_file import SafetensorsFile
from vivace.types.errors import ModelFileError, UnsupportedModelError, VivaceError
from vivace.types.vocabulary import HuggingFaceVocabulary
from vivace.types.weights import TensorFormat


@pytest.mark.parametrize("case", CONFIGS)
def test_a_checkpoint_of_every_kind_opens(tmp_path: Path, case: str) -> None:
    model = open_model(write_checkpoint(tmp_path, case))
    for name in model.weights.names():
        assert model.weights.dequantize(name).shape == model.weights.info(name).shape
    model.close()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("format", [TensorFormat.F32, TensorFormat.F16, TensorFormat.BF16])
def test_a_written_folder_is_read_back_whole(tmp_path: Path, architecture: str, format: TensorFormat) -> None:
    spec = hf_spec(architecture)
    weights = write_hf_folder(tmp_path, spec, format=format)
    model = open_model(tmp_path)
    assert model.spec == spec and model.name == tmp_path.name
    assert sorted(model.weights.names()) == sorted(weights.names())
    for name in weights.names():
        np.testing.assert_array_equal(model.weights.dequantize(name), weights.arrays[name])
        assert not model.weights.raw(name).flags.writeable
        assert model.weights.raw(name).size == model.weights.info(name).num_bytes
        model.weights.release(name)


def test_gemma_norms_come_as_they_multiply(tmp_path: Path) -> None:
    write_hf_folder(tmp_path, hf_spec("gemma3"), format=TensorFormat.BF16)
    model = open_model(tmp_path)
    info = model.weights.info("layers.0.attn.q_norm.weight")
    raw = model.weights.raw("layers.0.attn.q_norm.weight")
    assert info.format == TensorFormat.F32 and info.num_bytes == raw.size == 4 * 16
    np.testing.assert_array_equal(raw.view("<f4"), model.weights.dequantize("layers.0.attn.q_norm.weight"))


def test_shards_are_one_model(tmp_path: Path) -> None:
    weights = write_hf_folder(tmp_path, shards=3)
    model = open_model(tmp_path)
    for name in weights.names():
        np.testing.assert_array_equal(model.weights.dequantize(name), weights.arrays[name])
    model.close()
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(ModelFileError, match=r"00002-of-00003.* is missing"):
        open_model(tmp_path)


def test_an_index_cannot_lead_outside_the_folder(tmp_path: Path) -> None:
    write_hf_folder(tmp_path, shards=2)
    index = {"weight_map": {"model.norm.weight": "../secret.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelFileError, match="Only plain names"):
        open_model(tmp_path)


def test_the_vocabulary_carries_what_the_side_files_say(tmp_path: Path) -> None:
    write_hf_folder(tmp_path)
    vocabulary = open_model(tmp_path).vocabulary
    assert isinstance(vocabulary, HuggingFaceVocabulary)
    assert vocabulary.eos_ids == (1, 3) and vocabulary.bos_id == 0
    assert vocabulary.chat_template is not None and "<|assistant|>" in vocabulary.chat_template
    assert vocabulary.config["bos_token"] == "<|begin|>"
    (tmp_path / "chat_template.jinja").write_text("a template of its own")
    renewed = open_model(tmp_path).vocabulary
    assert renewed is not None and renewed.chat_template == "a template of its own"


def test_a_list_of_templates_is_searched_for_the_default(tmp_path: Path) -> None:
    write_hf_folder(tmp_path)
    named = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "plain"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    vocabulary = open_model(tmp_path).vocabulary
    assert vocabulary is not None and vocabulary.chat_template == "plain"


def test_a_folder_without_tokenizer_has_no_vocabulary(tmp_path: Path) -> None:
    write_hf_folder(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    assert open_model(tmp_path).vocabulary is None


def test_weights_that_are_tied_need_no_output_projection(tmp_path: Path) -> None:
    spec = replace(hf_spec(), tied_embeddings=True)
    write_hf_folder(tmp_path, spec, config={"tie_word_embeddings": False})
    assert open_model(tmp_path).spec.tied_embeddings  # there is none in the file, whatever the config says
    write_hf_folder(tmp_path, replace(spec, tied_embeddings=False), config={"tie_word_embeddings": True})
    model = open_model(tmp_path)
    assert model.spec.tied_embeddings and "lm_head.weight" not in model.weights.names()


def test_a_model_that_also_sees_is_read_for_its_text(tmp_path: Path) -> None:
    spec = hf_spec("gemma3")
    write_hf_folder(tmp_path, spec)
    config = json.loads((tmp_path / "config.json").read_text())
    outer = {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": config, "eos_token_id": [1, 2]}
    (tmp_path / "config.json").write_text(json.dumps(outer))
    model = SafetensorsFile(tmp_path / "model.safetensors")
    tensors = {
        f"language_model.{name}": (entry.shape, model.tensor_bytes(name).copy())
        for name, entry in model.entries.items()
    }
    model.close()
    tensors["vision_tower.patch.weight"] = (1,), np.zeros(4, dtype=np.uint8)
    (tmp_path / "model.safetensors").write_bytes(safetensors_bytes(tensors, TensorFormat.F32))
    assert open_model(tmp_path).spec == spec


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"config.json": "{"}, "not valid JSON"),
        ({"config.json": "[]"}, "does not hold a JSON object"),
        ({"config.json": "[" * 100_000}, "not valid JSON|impossible kind"),
        ({"config.json": None}, "without config.json"),
        ({"model.safetensors": None}, "has no safetensors files"),
        ({"model.safetensors": None, "pytorch_model.bin": "x"}, "pickled"),
        ({"model.safetensors": None, "a.safetensors": "x", "b.safetensors": "x"}, "no model.safetensors.index.json"),
        ({"model.safetensors": "<html>sign in</html>"}, "an HTML page"),
        ({"model.safetensors": ""}, "is empty"),
        ({"config.json": '{"architectures": ["GPT2LMHeadModel"]}'}, "LlamaForCausalLM, MistralForCausalLM"),
        ({"config.json": '{"architectures": "Llama"}'}, "'architectures' is not a list of strings"),
        ({"config.json": b"\xff\xfe"}, "not UTF-8"),
    ],
)
def test_a_broken_folder_is_named_in_one_line(
    tmp_path: Path, files: dict[str, str | bytes | None], message: str
) -> None:
    write_hf_folder(tmp_path)
    for name, content in files.items():
        if content is None:
            (tmp_path / name).unlink()
        else:
            (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(VivaceError, match=message) as caught:
        open_model(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("hidden_size", "64", "'hidden_size' is not a whole number"),
        ("hidden_size", True, "'hidden_size' is not a whole number"),
        ("hidden_size", 128, "has shape"),
        ("num_hidden_layers", 4, "lacks the tensor layers.3"),
        ("num_hidden_layers", 2, "'layers.2"),
        ("num_hidden_layers", 10**12, "claims 1000000000000 layers"),
        ("num_attention_heads", 0, "claims 0 heads"),
        ("num_key_value_heads", 3, "impossible"),
        ("rms_norm_eps", "tiny", "is not a number"),
        ("rms_norm_eps", -1.0, "impossible"),
        ("hidden_act", "relu", "activation is 'relu'"),
        ("attention_bias", True, "does not run models with attention_bias"),
        ("quantization_config", {"quant_method": "gptq"}, "quantization_config names 'gptq'"),
        ("rope_scaling", {"rope_type": "dynamic", "factor": 2.0}, "knows default, linear, llama3, yarn"),
        ("rope_scaling", {"rope_type": "linear"}, "lacks the field 'factor'"),
        ("rope_scaling", {"rope_type": "linear", "factor": 0}, "impossible"),
        ("rope_scaling", 4, "is not an object"),
        ("rope_theta", float("nan"), "rotary"),
        ("layer_types", ["full_attention"], "layer_types has 1 entries"),
        ("head_dim", 17, "impossible"),
        ("max_position_embeddings", 0, "impossible"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, field: str, value: object, message: str) -> None:
    write_hf_folder(tmp_path, config={field: value, "sliding_window": 8 if field == "layer_types" else None})
    if field == "layer_types":
        config = json.loads((tmp_path / "config.json").read_text())
        config["architectures"] = ["MistralForCausalLM"]
        (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises((ModelFileError, UnsupportedModelError), match=message):
        open_model(tmp_path)


@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_safetensors_file_is_refused(tmp_path: Path, keep: float) -> None:
    write_hf_folder(tmp_path)
    path = tmp_path / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(ModelFileError, match="again"):
        open_model(tmp_path)


def test_damaged_safetensors_headers_are_refused_or_read(tmp_path: Path) -> None:
    write_hf_folder(tmp_path)
    path = tmp_path / "model.safetensors"
    original = path.read_bytes()
    header_end = 8 + int.from_bytes(original[:8], "little")
    random = np.random.default_rng(5)
    for _ in range(500):
        data = bytearray(original)
        for _ in range(random.integers(1, 4)):
            data[random.integers(0, header_end)] = random.integers(0, 256)
        path.write_bytes(data)
        try:
            open_model(tmp_path).close()
        except VivaceError as error:
            assert str(error)
