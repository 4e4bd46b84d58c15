"""Hugging Face folders: config.json, safetensors whole and split, tokenizer files, and what is wrong with them."""

from pathlib import Path

import pytest

from factories.hf_checkpoints import CONFIGS, write_checkpoint
from vivace.files.open import open_model


@pytest.mark.parametrize("case", CONFIGS)
def test_a_checkpoint_of_every_kind_opens(tmp_path: Path, case: str) -> None:
    model = open_model(write_checkpoint(tmp_path, case))
    for name in model.weights.names():
        assert model.weights.dequantize(name).shape == model.weights.info(name).shape
    model.close()
