"""GGUF models: what the factory writes, the reader finds."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from factories.gguf_files import small_spec, write_gguf
from factories.tiny_models import ARCHITECTURES
from vivace.files.layout import expected_tensors
from vivace.files.open import open_model
from vivace.graph.weights import weight_shapes
from vivace.types.weights import TensorFormat


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("tied", [True, False])
def test_a_written_model_is_read_back_whole(tmp_path: Path, architecture: str, tied: bool) -> None:
    spec = replace(small_spec(architecture), tied_embeddings=tied, norm_eps=2**-20)
    weights = write_gguf(tmp_path / "model.gguf", spec)
    model = open_model(tmp_path / "model.gguf")
    assert model.spec == spec
    assert sorted(model.weights.names()) == sorted(weights.names())
    for name in weights.names():
        assert model.weights.info(name) == weights.info(name)
        np.testing.assert_array_equal(model.weights.dequantize(name), weights.arrays[name])
    model.close()


@pytest.mark.parametrize("format", list(TensorFormat))
def test_every_number_format_is_read_as_it_was_written(tmp_path: Path, format: TensorFormat) -> None:
    spec = small_spec(hidden_size=256, ffn_size=512, num_layers=1, head_dim=64)
    weights = write_gguf(tmp_path / "model.gguf", spec, format=format)
    model = open_model(tmp_path / "model.gguf")
    for name in weights.names():
        np.testing.assert_array_equal(model.weights.dequantize(name), weights.arrays[name])
    assert model.weights.info("layers.0.mlp.up.weight").format == format
    assert not model.weights.raw("layers.0.mlp.up.weight").flags.writeable


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_reader_and_op_list_agree_on_the_tensors_of_an_architecture(architecture: str) -> None:
    for tied in (True, False):
        spec = replace(small_spec(architecture), tied_embeddings=tied)
        assert expected_tensors(spec) == weight_shapes(spec)
