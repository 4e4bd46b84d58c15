"""Tokenizers of the two real models, built once."""

from pathlib import Path

import pytest
from hypothesis import settings

from vivace.files.open import open_model
from vivace.text.build import build_template, build_tokenizer
from vivace.text.template import ChatTemplate
from vivace.text.tokenizer import Tokenizer
from vivace.types.vocabulary import GgufVocabulary

settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
settings.load_profile("untimed")


def _vocabulary(path: Path) -> GgufVocabulary:
    vocabulary = open_model(path).vocabulary
    assert isinstance(vocabulary, GgufVocabulary)
    return vocabulary


@pytest.fixture(scope="session")
def smollm2(smollm2_path: Path) -> Tokenizer:
    """SmolLM2's tokenizer: byte-level BPE."""
    return build_tokenizer(_vocabulary(smollm2_path))


@pytest.fixture(scope="session")
def gemma3(gemma3_path: Path) -> Tokenizer:
    """Gemma 3's tokenizer: SentencePiece BPE with 262,144 pieces."""
    return build_tokenizer(_vocabulary(gemma3_path))


@pytest.fixture(scope="session")
def smollm2_template(smollm2_path: Path, smollm2: Tokenizer) -> ChatTemplate:
    """SmolLM2's chat template."""
    return build_template(_vocabulary(smollm2_path), smollm2)


@pytest.fixture(scope="session")
def gemma3_template(gemma3_path: Path, gemma3: Tokenizer) -> ChatTemplate:
    """The plain template, since Gemma 3's base model has none."""
    return build_template(_vocabulary(gemma3_path), gemma3)
