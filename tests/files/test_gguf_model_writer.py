"""A model written as GGUF is the model it came from: same settings, same weights, same tokenizer, same logits."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from factories.gguf_files import small_spec, write_gguf
from factories.hf_folders import hf_spec, write_hf_folder
from factories.tiny_models import ARCHITECTURES
from vivace.execute.reference import ReferenceExecutor
from vivace.execute.score import iterate_logits
from vivace.files.gguf_keys import frequency_factors, spec_metadata
from vivace.files.gguf_model_writer import write_gguf_model
from vivace.files.gguf_spec import read_gguf_spec
from vivace.files.open import LoadedModel, open_model
from vivace.graph.build import build_graph
from vivace.text.build import build_tokenizer
from vivace.types.model import RopeScaling
from vivace.types.weights import TensorFormat


def logits_of(model: LoadedModel) -> np.ndarray:
    executor = ReferenceExecutor(build_graph(model.spec), model.weights, num_blocks=2)
    tokens = np.arange(5, 25, dtype=np.int32)
    return np.concatenate([rows.copy() for _, rows in iterate_logits(executor, tokens, 0)])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_hugging_face_folder_becomes_a_gguf_file_with_the_same_logits(tmp_path: Path, architecture: str) -> None:
    write_hf_folder(tmp_path / "folder", hf_spec(architecture))
    source = open_model(tmp_path / "folder")
    write_gguf_model(tmp_path / "out.gguf", source, source.weights)
    written = open_model(tmp_path / "out.gguf")
    np.testing.assert_allclose(logits_of(written), logits_of(source), rtol=1e-4, atol=1e-4)
    assert written.vocabulary == source.vocabulary
    assert written.vocabulary is not None
    assert build_tokenizer(written.vocabulary).encode("the sand") != []


@pytest.mark.parametrize("vocabulary", ["gpt2", "llama"])
def test_metadata_of_a_gguf_file_is_copied(tmp_path: Path, vocabulary: str) -> None:
    write_gguf(tmp_path / "in.gguf", format=TensorFormat.Q8_0, vocabulary=vocabulary)
    source = open_model(tmp_path / "in.gguf")
    write_gguf_model(tmp_path / "out.gguf", source, source.weights, {"vivace.note": "hello"})
    written = open_model(tmp_path / "out.gguf")
    assert written.spec == source.spec
    assert written.vocabulary == source.vocabulary
    for name in source.weights.names():
        np.testing.assert_array_equal(written.weights.raw(name), source.weights.raw(name))


@pytest.mark.parametrize(
    "scaling",
    [
        None,
        RopeScaling("linear", 4.0),
        RopeScaling("yarn", 4.0, original_context_length=64),
        RopeScaling("yarn", 4.0, original_context_length=64, attention_factor=1.5, beta_fast=16.0),
    ],
)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_keys_and_spec_are_inverse(tmp_path: Path, architecture: str, scaling: RopeScaling | None) -> None:
    spec = small_spec(architecture)
    rope = replace(spec.attention.rope, scaling=scaling)
    spec = replace(spec, attention=replace(spec.attention, rope=rope, scale=0.5), norm_eps=2**-20)
    write_gguf(tmp_path / "m.gguf", spec)
    tensors = {"token_embd.weight": open_gguf_tensor(tmp_path / "m.gguf", "token_embd.weight")}
    tensors |= {f"filler.{index}": tensors["token_embd.weight"] for index in range(9)}
    found = read_gguf_spec(dict(spec_metadata(spec, "m")), tensors, None)  # type: ignore[arg-type]
    stretched = found.attention.rope.scaling
    if scaling is not None and scaling.attention_factor is not None:
        assert stretched is not None
        assert stretched.attention_factor == pytest.approx(scaling.attention_factor, rel=1e-6)
        found = replace(found, attention=replace(found.attention, rope=rope))
    assert replace(found, tied_embeddings=spec.tied_embeddings) == spec


def open_gguf_tensor(path: Path, name: str) -> object:
    from vivace.files.gguf import GgufFile

    return GgufFile(path).tensors[name]


def test_llama3_scaling_is_stored_as_frequency_factors(tmp_path: Path) -> None:
    spec = hf_spec()
    scaling = RopeScaling("llama3", 8.0, original_context_length=64)
    spec = replace(spec, attention=replace(spec.attention, rope=replace(spec.attention.rope, scaling=scaling)))
    assert frequency_factors(hf_spec().attention.rope) is None
    llama3 = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    write_hf_folder(tmp_path / "folder", spec, config={"rope_scaling": llama3})
    source = open_model(tmp_path / "folder")
    assert source.spec.attention.rope.scaling == scaling
    write_gguf_model(tmp_path / "out.gguf", source, source.weights)
    np.testing.assert_allclose(logits_of(open_model(tmp_path / "out.gguf")), logits_of(source), rtol=1e-4, atol=1e-4)
