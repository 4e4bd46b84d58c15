"""Fixtures that several folders of tests share: the real models, taken from disk or pulled once."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("untimed", settings(), deadline=None)  # how long an example takes is no property of the code
settings.load_profile("untimed")


def _real_model(name: str, file_name: str) -> Path:
    """A model in the folder that VIVACE_TEST_MODELS names, else from the catalogue."""
    folder = os.environ.get("VIVACE_TEST_MODELS")
    if folder and (Path(folder) / file_name).is_file():
        return Path(folder) / file_name
    from vivace.files.catalogue import pull

    return pull(name)


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """SmolLM2 135M Instruct, Q4_1 with Q8_0 embeddings."""
    return _real_model("smollm2-135m", "SmolLM2-135M-Instruct.Q4_1.gguf")


@pytest.fixture(scope="session")
def gemma3_path() -> Path:
    """Gemma 3 270M (base), Q4_K_M: Q4_K, Q5_0, Q6_K and Q8_0 tensors."""
    return _real_model("gemma3-270m", "gemma-3-270m-q4_k_m.gguf")
