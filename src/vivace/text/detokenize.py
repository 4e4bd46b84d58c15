"""Ids to text while they arrive: every piece of text handed out is final."""

import codecs

from vivace.text.tokenizer import Tokenizer


class IncrementalDetokenizer:
    """Turns a stream of ids into text. The pieces, `flush` included, add up to `tokenizer.decode(all ids)`.

    A character whose bytes are spread over several tokens comes out with the last of them; bytes that can no longer
    become UTF-8 come out as U+FFFD.

    Args:
        tokenizer: spells the ids.
        skip_special: leave control tokens out of the text.
        continues: the ids go on from a text that stands before them (a raw completion), so a SentencePiece-style
            tokenizer's leading blank is part of the text.
    """

    __slots__ = ("_decoder", "_skip_special", "_strip", "_tokenizer")

    def __init__(self, tokenizer: Tokenizer, *, skip_special: bool = True, continues: bool = False) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._strip = tokenizer.strips_space and not continues
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, token_id: int) -> str:
        """Take one more id; return the text that has become final, often "" in the middle of a character.

        Raises:
            TokenizerError: the id is not in the vocabulary.
        """
        data = self._tokenizer.visible_bytes(token_id, skip_special=self._skip_special)
        if self._strip and data:
            self._strip = False
            data = data.removeprefix(b" ")
        return self._decoder.decode(data)

    @property
    def is_whole(self) -> bool:
        """Whether the ids so far end with a whole character."""
        return not self._decoder.getstate()[0]

    def flush(self) -> str:
        """Text of what was held back; the stream ends here."""
        return self._decoder.decode(b"", final=True)
