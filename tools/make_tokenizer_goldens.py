"""Make tests/text/golden/*.npy: a hash of the expected ids of every fuzz text, from the reference tokenizers.

    python tools/make_tokenizer_goldens.py --models FOLDER                    # write the golden files
    python tools/make_tokenizer_goldens.py --models FOLDER --compare 200000   # compare vivace on that many texts
    python tools/make_tokenizer_goldens.py --models FOLDER --rows 20000       # compare the pre-tokenizer rows

Reference of SmolLM2 is Hugging Face transformers, of Gemma 3 SentencePiece; llama.cpp is asked as well, and where it
differs the first cases are printed. FOLDER holds the GGUF files of the catalogue. Needs transformers, sentencepiece and
xllamacpp (none of which the tests need) beside what vivace needs; run it with `src` and `tests` on PYTHONPATH.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from tokenizer_references import LlamaCppReference, SentencePieceReference, TransformersReference

from factories.fuzz_text import fuzz_text
from factories.id_hash import hash_ids
from vivace.files.open import open_model
from vivace.text.build import build_tokenizer
from vivace.text.pretokenizers import PRE_TOKENIZERS
from vivace.text.tokenizer import Tokenizer
from vivace.types.vocabulary import GgufVocabulary

OUTPUT = Path(__file__).resolve().parent.parent / "tests" / "text" / "golden"
NUM_TEXTS = 6000
FILES = {"smollm2-135m": "SmolLM2-135M-Instruct.Q4_1.gguf", "gemma3-270m": "gemma-3-270m-q4_k_m.gguf"}
Encode = Callable[[str], list[int]]


def reference(name: str, path: Path, vocabulary: GgufVocabulary) -> Encode:
    """The reference tokenizer of a model."""
    if name == "smollm2-135m":
        return TransformersReference(path).encode
    return SentencePieceReference(vocabulary).encode


def make(name: str, path: Path) -> None:
    """Write the golden file of one model."""
    encode = reference(name, path, vocabulary_of(path))
    hashes = [hash_ids(encode(fuzz_text(seed))) for seed in range(NUM_TEXTS)]
    OUTPUT.mkdir(exist_ok=True)
    np.save(OUTPUT / f"{name}.npy", np.array(hashes, dtype=np.uint64))
    print(f"{name}: {NUM_TEXTS} texts")


def vocabulary_of(path: Path) -> Any:
    """The vocabulary of a GGUF file."""
    return open_model(path).vocabulary


def compare(name: str, ours: Tokenizer, theirs: Encode, texts: range) -> None:
    """Print on how many texts two tokenizers differ, and the first few cases."""
    start = time.perf_counter()
    differing = 0
    for seed in texts:
        text = fuzz_text(seed)
        got, expected = ours.encode(text, add_special=False), theirs(text)
        if got != expected:
            differing += 1
            if differing <= 5:
                at = next((i for i, (a, b) in enumerate(zip(got, expected, strict=False)) if a != b), 0)
                shown = [[ours.token_text(i) for i in ids[max(at - 1, 0) : at + 4]] for ids in (got, expected)]
                print(f"  seed {seed}: ours {shown[0]}, theirs {shown[1]}")
    print(f"{name}: {differing} of {len(texts)} texts differ ({time.perf_counter() - start:.0f} s)", flush=True)


def compare_model(name: str, path: Path, num_texts: int) -> None:
    """Compare one model's tokenizer with its reference and with llama.cpp."""
    vocabulary = vocabulary_of(path)
    ours = build_tokenizer(vocabulary)
    compare(f"{name}, reference", ours, reference(name, path, vocabulary), range(num_texts))
    compare(f"{name}, llama.cpp", ours, LlamaCppReference(path).encode, range(num_texts))
    if vocabulary.model == "llama":
        prefixed = replace(vocabulary, add_space_prefix=True)
        theirs = SentencePieceReference(prefixed)
        compare(f"{name} with space prefix", build_tokenizer(prefixed), theirs.encode, range(num_texts))


def compare_rows(path: Path, num_texts: int) -> None:
    """Compare every row of the pre-tokenizer table with llama.cpp, on a tiny model with SmolLM2's vocabulary."""
    vocabulary = vocabulary_of(path)
    for row in PRE_TOKENIZERS:
        with tempfile.TemporaryDirectory() as folder:
            tiny = Path(folder) / "tiny.gguf"
            write_tiny_model(vocabulary, row.names[0], tiny)
            ours = build_tokenizer(replace(vocabulary, pre=row.names[0]))
            compare(f"row {row.names[0]}", ours, LlamaCppReference(tiny).encode, range(num_texts))


def write_tiny_model(vocabulary: GgufVocabulary, pre: str, path: Path) -> None:
    """A GGUF file with one thin layer and the given vocabulary, which llama.cpp loads."""
    width = 32
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(256)
    writer.add_embedding_length(width)
    writer.add_block_count(1)
    writer.add_feed_forward_length(width)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.token_types)
    writer.add_token_merges(vocabulary.merges)
    writer.add_bos_token_id(vocabulary.special_ids["bos"])
    writer.add_eos_token_id(vocabulary.special_ids["eos"])
    size = len(vocabulary.tokens)
    shapes = {"token_embd": (size, width), "output_norm": (width,), "blk.0.attn_norm": (width,)}
    shapes |= {"blk.0.ffn_norm": (width,)}
    squares = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    shapes |= {f"blk.0.{name}": (width, width) for name in squares}
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", np.ones(shape, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--compare", type=int, metavar="N")
    parser.add_argument("--rows", type=int, metavar="N")
    options = parser.parse_args()
    for name, file_name in FILES.items():
        path = options.models / file_name
        if options.rows:
            if name == "smollm2-135m":
                compare_rows(path, options.rows)
        elif options.compare:
            compare_model(name, path, options.compare)
        else:
            make(name, path)


if __name__ == "__main__":
    main()
