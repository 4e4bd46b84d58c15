"""Time tokenizers: building, encoding, decoding piece by piece; and the way that sentencepiece.py avoids.

python bench/tokenizers_speed.py MODEL.gguf [TEXT_FILE]     # prints one line a figure, best of five
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers.models import BPE

from vivace.files.open import open_model
from vivace.text.build import build_template, build_tokenizer
from vivace.text.detokenize import IncrementalDetokenizer
from vivace.text.stop import StopMatcher
from vivace.text.tokenizer import Tokenizer
from vivace.types.request import ChatMessage
from vivace.types.vocabulary import GgufVocabulary

SAMPLE = "The quick brown fox, aged 42, jumps over the lazy dog. 敏捷的棕色狐狸跳过了懒狗。\n" * 3000


def best_s(call: Callable[[], Any], repeats: int = 5) -> float:
    """Shortest time of a few calls, in seconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def derive_merges(vocabulary: GgufVocabulary) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A SentencePiece vocabulary as merges for the `tokenizers` library: every way to make a piece of two."""
    ids = {text: i for i, text in enumerate(vocabulary.tokens)}
    found = [
        (-vocabulary.scores[i], piece[:cut], piece[cut:])
        for piece, i in ids.items()
        if vocabulary.token_types[i] == 1
        for cut in range(1, len(piece))
        if piece[:cut] in ids and piece[cut:] in ids
    ]
    found.sort(key=lambda row: row[0])
    return ids, [(left, right) for _, left, right in found]


def stream(tokenizer: Tokenizer, ids: list[int]) -> None:
    """Detokenise and match stop strings, token by token."""
    detokenizer, matcher = IncrementalDetokenizer(tokenizer), StopMatcher(["\nUser:", "###", "<end>"])
    for token_id in ids:
        matcher.feed(detokenizer.add(token_id))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("text", type=Path, nargs="?")
    options = parser.parse_args()
    vocabulary = open_model(options.model).vocabulary
    assert isinstance(vocabulary, GgufVocabulary)
    text = options.text.read_text() if options.text else SAMPLE
    tokenizer = build_tokenizer(vocabulary)
    template = build_template(vocabulary, tokenizer)
    messages = [ChatMessage(("user", "assistant")[i % 2], text[500 * i : 500 * i + 500]) for i in range(9)]
    ids = tokenizer.encode(text)
    print(f"build tokenizer         {best_s(lambda: build_tokenizer(vocabulary)) * 1e3:8.1f} ms")
    print(f"build template          {best_s(lambda: build_template(vocabulary, tokenizer)) * 1e3:8.1f} ms")
    first_s = best_s(lambda: build_tokenizer(vocabulary).encode(text)) - best_s(lambda: build_tokenizer(vocabulary))
    print(f"encode, first time      {len(text.encode()) / 1e6 / first_s:8.2f} MB/s")
    print(f"encode, again           {len(text.encode()) / 1e6 / best_s(lambda: tokenizer.encode(text)):8.2f} MB/s")
    print(f"encode_chat, 4.5 kB     {best_s(lambda: template.encode_chat(messages)) * 1e3:8.2f} ms")
    print(f"stream, a token         {best_s(lambda: stream(tokenizer, ids)) / len(ids) * 1e6:8.2f} us")
    if vocabulary.model == "llama":
        pieces, merges = derive_merges(vocabulary)
        print(f"derive {len(merges)} merges   {best_s(lambda: derive_merges(vocabulary), 2) * 1e3:8.1f} ms")
        print(f"load them in tokenizers {best_s(lambda: BPE(pieces, merges), 2) * 1e3:8.1f} ms")


if __name__ == "__main__":
    main()
