"""Ids equal those of the reference tokenizers: Hugging Face for SmolLM2, SentencePiece for Gemma 3.

The golden files come from tools/make_tokenizer_goldens.py.
"""

from pathlib import Path

import numpy as np
import pytest

from factories.fuzz_text import fuzz_text
from factories.id_hash import hash_ids
from vivace.text.tokenizer import Tokenizer

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", ["smollm2", "gemma3"])
def test_ids_of_six_thousand_strange_texts_are_those_of_the_reference(
    name: str, request: pytest.FixtureRequest
) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(name)
    expected = np.load(GOLDEN / {"smollm2": "smollm2-135m.npy", "gemma3": "gemma3-270m.npy"}[name])
    assert len(expected) == 6000
    got = [hash_ids(tokenizer.encode(fuzz_text(seed), add_special=False)) for seed in range(len(expected))]
    wrong = np.flatnonzero(np.array(got, dtype=np.uint64) != expected)
    assert wrong.tolist() == [], [fuzz_text(seed) for seed in wrong[:3]]


def test_a_known_prompt_has_known_ids(smollm2: Tokenizer, gemma3: Tokenizer) -> None:
    assert smollm2.encode("The capital of France is") == [504, 3575, 282, 4649, 314]
    assert gemma3.encode("The capital of France is") == [2, 818, 5279, 529, 7001, 563]


@pytest.mark.parametrize("name", ["smollm2", "gemma3"])
def test_decoding_gives_back_every_text_that_the_vocabulary_can_spell(
    name: str, request: pytest.FixtureRequest
) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(name)
    spelled = {tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size)}
    lacking = {byte for byte in range(256) if bytes([byte]) not in spelled}
    for seed in range(6000, 8000):
        text = fuzz_text(seed, any_code_point=True)
        if name == "gemma3":
            text = text.replace("▁", "_")  # SentencePiece's own character for the blank
        if lacking.isdisjoint(text.encode()):
            assert tokenizer.decode(tokenizer.encode(text)) == text, seed
