"""SentencePiece BPE from the keys of a GGUF file ("llama" vocabularies): pieces with scores, and byte fallback.

Method: Kudo and Richardson, 2018, "SentencePiece"; the algorithm of its `bpe::Model`. Neighbouring pieces are joined as
long as their join is a piece, the best score first, the leftmost among equals. User-defined pieces are set aside
beforehand and never join. Characters that are no piece fall back to their UTF-8 bytes.

Why this is not the `tokenizers` library: that one wants the joins as a list of merges. For Gemma 3 these are 513,511,
which take 1.0 s to derive and 0.8 s to load at every start (bench/tokenizers_speed.py). This encoder is ready in 0.1 s,
is as fast on texts (words repeat, and results are kept by word), and exact where merges are not: equal scores, runs of
more than 31 blanks. `tests/text/test_goldens.py` holds it to SentencePiece itself.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from heapq import heapify, heappop, heappush
from itertools import pairwise

from vivace.text.literals import LiteralMatcher
from vivace.types.errors import TokenizerError

BLANK = "▁"
_CACHED_WORDS = 65_536
_LONGEST_CACHED_WORD = 64
_LONGEST_SCANNED_WORD = 24
_NEVER = float("inf")


class SentencePieceEncoder:
    """Encodes plain text as SentencePiece does for a BPE model with identity normalisation.

    Args:
        pieces: text to id of the pieces that joins may produce, with "▁" for the blank.
        scores: by id; higher joins earlier.
        user_defined: text to id of pieces that are taken whole wherever they occur.
        byte_ids: ids of the 256 byte pieces, or None without byte fallback.
        unknown_id: stands for a run of characters that cannot be spelled otherwise.
        add_space_prefix: a blank is put before a text, and before what follows a control token.
    """

    def __init__(
        self,
        pieces: dict[str, int],
        scores: Sequence[float],
        user_defined: dict[str, int],
        byte_ids: Sequence[int] | None,
        unknown_id: int | None,
        *,
        add_space_prefix: bool,
    ) -> None:
        self._pieces = pieces
        self._scores = scores
        self._user_defined = LiteralMatcher({text.replace(" ", BLANK): i for text, i in user_defined.items()})
        self._byte_ids = byte_ids
        self._unknown_id = unknown_id
        self._prefix = BLANK if add_space_prefix else ""
        self._cut = _word_cut(pieces)
        self._cached_word = lru_cache(_CACHED_WORDS)(self._encode_word)

    def encode(self, text: str, *, at_start: bool) -> list[int]:
        """Ids of plain text.

        Raises:
            TokenizerError: a character is no piece and the vocabulary has neither bytes nor an unknown piece.
        """
        text = self._prefix + text.replace(" ", BLANK)
        ids: list[int] = []
        position = 0
        for start, end, token_id in self._user_defined.find(text):
            self._extend(ids, text[position:start])
            ids.append(token_id)
            position = end
        self._extend(ids, text[position:])
        return ids

    def _extend(self, ids: list[int], text: str) -> None:
        for word in self._cut.split(text):
            encode = self._cached_word if len(word) <= _LONGEST_CACHED_WORD else self._encode_word
            found = encode(word)
            if found and ids and found[0] == ids[-1] == self._unknown_id:
                found = found[1:]
            ids += found

    def _encode_word(self, word: str) -> tuple[int, ...]:
        join = self._join_by_scan if len(word) <= _LONGEST_SCANNED_WORD else self._join_by_heap
        ids: list[int] = []
        for piece in join(word):
            token_id = self._pieces.get(piece)
            if token_id is not None:
                ids.append(token_id)
            elif self._byte_ids is not None:
                ids += [self._byte_ids[byte] for byte in piece.encode("utf-8")]
            elif self._unknown_id is None:
                raise TokenizerError(
                    f"The model's vocabulary has no token for {piece!r} and no byte tokens.",
                    "Leave the character out, or use another model.",
                )
            elif not ids or ids[-1] != self._unknown_id:
                ids.append(self._unknown_id)
        return tuple(ids)

    def _cost(self, piece: str) -> float:
        token_id = self._pieces.get(piece)
        return _NEVER if token_id is None else -self._scores[token_id]

    def _join_by_scan(self, word: str) -> list[str]:
        """Join by looking for the best pair over and over: the fastest way for a word of few characters."""
        symbols = list(word)
        cost = self._cost
        costs = [cost(left + right) for left, right in pairwise(symbols)]
        while costs and (best := min(costs)) != _NEVER:
            at = costs.index(best)
            symbols[at] += symbols.pop(at + 1)
            del costs[at]
            if at < len(costs):
                costs[at] = cost(symbols[at] + symbols[at + 1])
            if at:
                costs[at - 1] = cost(symbols[at - 1] + symbols[at])
        return symbols

    def _join_by_heap(self, word: str) -> list[str]:
        """Join with a heap of candidate pairs: n log n for long stretches without a cut, such as Chinese text."""
        symbols = list(word)
        cost = self._cost
        following = [*range(1, len(symbols)), -1]
        preceding = list(range(-1, len(symbols) - 1))
        heap: list[tuple[float, int, int, str]] = []
        for right in range(1, len(symbols)):
            pair = symbols[right - 1] + symbols[right]
            if (pair_cost := cost(pair)) != _NEVER:
                heap.append((pair_cost, right - 1, right, pair))
        heapify(heap)
        while heap:
            _, left, right, pair = heappop(heap)
            # A candidate is stale when either side has been joined since: sides only grow, or become "".
            grown = len(symbols[left]) + len(symbols[right]) != len(pair)
            if grown or not symbols[left] or following[left] != right:
                continue
            symbols[left], symbols[right] = pair, ""
            after = following[left] = following[right]
            if after >= 0:
                preceding[after] = left
                joined = pair + symbols[after]
                if (pair_cost := cost(joined)) != _NEVER:
                    heappush(heap, (pair_cost, left, after, joined))
            before = preceding[left]
            if before >= 0:
                joined = symbols[before] + pair
                if (pair_cost := cost(joined)) != _NEVER:
                    heappush(heap, (pair_cost, before, left, joined))
        return [symbol for symbol in symbols if symbol]


def _word_cut(pieces: dict[str, int]) -> re.Pattern[str]:
    """Pattern of the places where no piece can span: before a blank, but not after the characters found before one.

    In Gemma 3 a single piece, ">▁</", has a blank inside.
    """
    before_blank = {part[-1:] for part in "\0".join(pieces).split(BLANK)[:-1]} - {"", "\0"}
    barred = "".join(map(re.escape, sorted(before_blank | {BLANK})))
    return re.compile(f"(?<![{barred}])(?={BLANK})")


def piece_spelling(text: str, byte_value: int | None) -> bytes:
    """Bytes that a piece stands for: one byte for a byte piece, else its text with blanks for "▁"."""
    return bytes([byte_value]) if byte_value is not None else text.replace(BLANK, " ").encode("utf-8")
