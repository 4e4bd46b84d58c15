"""Matrices in bands of rows as tensors of a GGUF file: found again, and refused where they make no matrix."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from factories.gguf_files import small_spec, write_gguf
from vivace.compress.stored import StoredWeights, store_bands, store_floats
from vivace.files.gguf import GgufFile
from vivace.files.gguf_bands import join_bands
from vivace.files.gguf_model_writer import write_gguf_model
from vivace.files.gguf_writer import TensorToWrite, write_gguf_file
from vivace.files.open import open_model
from vivace.types.errors import ModelFileError
from vivace.types.weights import RowBand, TensorFormat

Q4, Q8 = TensorFormat.Q4_0, TensorFormat.Q8_0
BANDS = ((0, 64, TensorFormat.Q8_0), (64, 256, TensorFormat.Q6_0), (256, 320, TensorFormat.Q4_0))


@pytest.mark.parametrize("name", ["embed.weight", "lm_head.weight"])
def test_a_banded_matrix_is_read_back_as_it_was_written(tmp_path: Path, name: str) -> None:
    spec = replace(small_spec(), tied_embeddings=False)
    weights = write_gguf(tmp_path / "source.gguf", spec)
    source = open_model(tmp_path / "source.gguf")
    values = weights.arrays[name]
    bands = [store_floats(values[begin:end], format) for begin, end, format in BANDS]
    stored = StoredWeights({name: store_bands(bands)}, source.weights)
    write_gguf_model(tmp_path / "banded.gguf", source, stored)
    model = open_model(tmp_path / "banded.gguf")
    info = model.weights.info(name)
    assert info == stored.info(name)
    assert info.bands == tuple(RowBand(*band) for band in BANDS)
    assert info.format is TensorFormat.Q6_0  # of most rows
    np.testing.assert_array_equal(model.weights.raw(name), stored.raw(name))
    np.testing.assert_array_equal(model.weights.dequantize(name), stored.dequantize(name))
    assert not model.weights.raw(name).flags.writeable  # a view of the file, not a copy
    assert model.spec == source.spec
    for other in weights.names():
        if other != name:
            assert model.weights.info(other) == source.weights.info(other)
    model.weights.release(name)
    model.close()


def banded_file(path: Path, bands: list[tuple[str, int, TensorFormat]], columns: tuple[int, ...] = ()) -> GgufFile:
    """A file with tensors of these names, rows and formats, 64 columns each but where `columns` says otherwise."""
    widths = columns or (64,) * len(bands)
    tensors = []
    for (name, rows, format), width in zip(bands, widths, strict=True):
        data = store_floats(np.ones((rows, width), np.float32), format).data
        tensors.append(TensorToWrite(name, (rows, width), format, lambda data=data: data))
    write_gguf_file(path, {"general.architecture": "llama"}, tensors)
    return GgufFile(path)


def test_bands_apart_in_the_file_are_put_together(tmp_path: Path) -> None:
    file = banded_file(tmp_path / "m.gguf", [("x.weight.64", 6, Q4), ("y.weight", 8, Q4), ("x.weight", 64, Q8)])
    found = dict(join_bands(file))
    assert list(found) == ["y.weight", "x.weight"]
    assert found["x.weight"].shape == (70, 64)
    assert found["x.weight"].bands == (RowBand(0, 64, Q8), RowBand(64, 70, Q4))
    np.testing.assert_allclose(found["x.weight"].dequantize(), 1.0, atol=1e-2)


@pytest.mark.parametrize(
    ("bands", "columns", "says"),
    [
        ([("x.weight", 64, "Q8_0"), ("x.weight.128", 64, "Q4_0")], (), "do not make"),  # a gap
        ([("x.weight", 128, "Q8_0"), ("x.weight.64", 64, "Q4_0")], (), "do not make"),  # twice the same rows
        ([("x.weight", 48, "Q8_0"), ("x.weight.48", 64, "Q4_0")], (), "multiple of 64"),
        ([("x.weight", 64, "F16"), ("x.weight.64", 64, "Q4_0")], (), "stored in F16"),
        ([("x.weight", 64, "Q8_0"), ("x.weight.64", 64, "N8_0")], (), "stored in N8_0"),
        ([("x.weight", 64, "Q8_0"), ("x.weight.64", 64, "Q4_0")], (64, 96), "not equally long"),
    ],
)
def test_bands_that_make_no_matrix_are_refused(
    tmp_path: Path, bands: list[tuple[str, int, str]], columns: tuple[int, ...], says: str
) -> None:
    rows = [(name, count, TensorFormat(format)) for name, count, format in bands]
    file = banded_file(tmp_path / "m.gguf", rows, columns)
    with pytest.raises(ModelFileError, match=says):
        dict(join_bands(file))


def test_a_number_behind_a_name_without_its_first_band_is_a_tensor_nobody_knows(tmp_path: Path) -> None:
    file = banded_file(tmp_path / "m.gguf", [("x.weight.64", 64, TensorFormat.Q4_0)])
    assert list(dict(join_bands(file))) == ["x.weight.64"]
