"""The two real models of the catalogue, as their files tell them."""

from pathlib import Path

import pytest

from vivace.files.open import open_model
from vivace.types.errors import ModelFileError
from vivace.types.model import RopeSpec
from vivace.types.vocabulary import GgufVocabulary
from vivace.types.weights import TensorFormat


def test_smollm2_is_a_llama_with_grouped_queries(smollm2_path: Path) -> None:
    model = open_model(smollm2_path)
    spec = model.spec
    assert (spec.architecture, spec.num_layers, spec.hidden_size, spec.vocab_size) == ("llama", 30, 576, 49152)
    assert (spec.attention.num_heads, spec.attention.num_kv_heads, spec.attention.head_dim) == (9, 3, 64)
    assert spec.attention.rope == RopeSpec(base=100_000.0, dim=64, interleaved=True)
    assert spec.attention.windows == (None,) * 30 and spec.context_length == 8192
    assert spec.tied_embeddings and spec.embed_scale == 1.0
    assert model.weights.info("embed.weight").format == TensorFormat.Q8_0
    assert model.weights.info("layers.7.mlp.down.weight").shape == (576, 1536)
    vocabulary = model.vocabulary
    assert isinstance(vocabulary, GgufVocabulary)
    assert (vocabulary.model, vocabulary.pre, len(vocabulary.merges)) == ("gpt2", "smollm", 48_900)
    assert vocabulary.special_ids == {"bos": 1, "eos": 2, "unknown": 0, "padding": 2}
    assert not vocabulary.add_bos and vocabulary.chat_template is not None
    assert vocabulary.tokens[:3] == ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    model.close()


def test_gemma3_attends_locally_in_five_layers_of_six(gemma3_path: Path) -> None:
    model = open_model(gemma3_path)
    spec = model.spec
    assert (spec.architecture, spec.num_layers, spec.hidden_size, spec.vocab_size) == ("gemma3", 18, 640, 262_144)
    assert spec.attention.windows == ((512,) * 5 + (None,)) * 3
    assert spec.attention.rope == RopeSpec(base=1_000_000.0, dim=256, interleaved=False)
    assert spec.attention.local_rope == RopeSpec(base=10_000.0, dim=256, interleaved=False)
    assert spec.attention.scale == 1 / 16 and spec.attention.qk_norm
    assert spec.embed_scale == pytest.approx(640**0.5) and spec.activation == "gelu_tanh"
    vocabulary = model.vocabulary
    assert isinstance(vocabulary, GgufVocabulary)
    assert (vocabulary.model, vocabulary.add_bos, vocabulary.add_space_prefix) == ("llama", True, False)
    assert vocabulary.special_ids == {"bos": 2, "eos": 1, "unknown": 3, "padding": 0}
    assert len(vocabulary.scores) == len(vocabulary.token_types) == 262_144
    model.close()


@pytest.mark.parametrize("kept_bytes", [10, 5000, 1_000_000, 1_785_664, 90_000_000])
def test_a_download_of_smollm2_that_was_cut_is_refused(smollm2_path: Path, tmp_path: Path, kept_bytes: int) -> None:
    with smollm2_path.open("rb") as whole, (tmp_path / "cut.gguf").open("wb") as cut:
        cut.write(whole.read(min(kept_bytes, 2_000_000)))
        cut.truncate(kept_bytes)  # the rest as a hole
    with pytest.raises(ModelFileError, match=r"get it again"):
        open_model(tmp_path / "cut.gguf")
