"""The model in the formats of peers, held to the file it came from."""

from pathlib import Path

import numpy as np
import pytest

from factories.gguf_files import small_spec, write_gguf
from vivace.cli.compare.environments import PeerError
from vivace.cli.compare.formats import model_in
from vivace.cli.compare.hf_folder import write_hf_folder
from vivace.files.open import open_model
from vivace.types.errors import UnsupportedModelError
from vivace.types.weights import TensorFormat

PYTHON = Path("python")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIVACE_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(("format", "error"), [("Q8_0", 0.02), ("Q4_0", 0.3)])
def test_requantised_files_open_and_are_near(tmp_path: Path, format: str, error: float) -> None:
    path = tmp_path / "small.gguf"
    write_gguf(path, small_spec(), format=TensorFormat.Q4_1)
    made = model_in(format, path, PYTHON)
    before, after = open_model(path), open_model(made)
    try:
        assert after.weights.info("layers.0.mlp.up.weight").format == format
        assert after.weights.info("embed.weight").format == "Q4_1"
        old, new = (one.weights.dequantize("layers.0.mlp.up.weight") for one in (before, after))
        assert np.abs(old - new).max() <= error * np.abs(old).max()
        assert before.spec == after.spec
    finally:
        before.close()
        after.close()
    written = made.stat().st_mtime_ns
    assert model_in(format, path, PYTHON).stat().st_mtime_ns == written  # made once


def test_the_shipped_file_is_itself(tmp_path: Path) -> None:
    assert model_in("file", tmp_path / "x", PYTHON) == tmp_path / "x"


def test_a_folder_is_not_requantised(tmp_path: Path) -> None:
    with pytest.raises(PeerError, match="no GGUF file"):
        model_in("Q4_0", tmp_path, PYTHON)


def test_a_hugging_face_folder_has_the_same_weights(tmp_path: Path) -> None:
    path, folder = tmp_path / "small.gguf", tmp_path / "folder"
    folder.mkdir()
    weights = write_gguf(path, small_spec(), format=TensorFormat.F16)
    write_hf_folder(path, folder)
    found = open_model(folder)
    try:
        assert found.spec.hidden_size == small_spec().hidden_size
        assert not found.spec.attention.rope.interleaved
        for name, values in weights.arrays.items():
            stored = found.weights.dequantize(name)
            if ".attn.q." in name or ".attn.k." in name:
                pairs = values.reshape(-1, 8, 2, values.shape[-1])  # heads of 16 lanes
                values = pairs.swapaxes(1, 2).reshape(values.shape)  # noqa: PLW2901
            assert np.allclose(stored, values, atol=1e-3), name
    finally:
        found.close()


def test_only_plain_llamas_become_folders(tmp_path: Path) -> None:
    path = tmp_path / "small.gguf"
    write_gguf(path, small_spec("qwen3"), format=TensorFormat.F16)
    with pytest.raises(UnsupportedModelError, match="qwen3"):
        write_hf_folder(path, tmp_path)
