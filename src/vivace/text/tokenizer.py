"""The one tokenizer class: text to ids and back, whatever vocabulary it was built from (see `build.py`).

It owns what all vocabularies share: control tokens, begin and end of sequence, ids to bytes. Cutting plain text into
ids is left to an `Encoder`. Control tokens are recognised here and nowhere else, and only when the caller says so:
text that a user typed can therefore never become a control token.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from vivace.text.literals import LiteralMatcher
from vivace.types.errors import TokenizerError


class Encoder(Protocol):
    """Cuts plain text into ids; it knows no control tokens."""

    def encode(self, text: str, *, at_start: bool) -> list[int]:
        """Ids of `text`; `at_start` is false when a control token stands before it."""
        ...


class UnencodableTextError(TokenizerError):
    """Text that no tokenizer can encode; the caller's fault, not the model's."""

    code: ClassVar[str] = "invalid_text"
    http_status: ClassVar[int] = 400


@dataclass(frozen=True, slots=True)
class ControlToken:
    """A token with a meaning instead of a spelling. `lstrip` and `rstrip` let it swallow the blanks beside it."""

    token_id: int
    lstrip: bool = False
    rstrip: bool = False


@dataclass(frozen=True, slots=True)
class TokenTable:
    """What a vocabulary says about its tokens; the builders fill it, `Tokenizer` reads it.

    Args:
        size: ids run from 0 to size - 1.
        text: id to the entry as the file spells it; None for an id that the file leaves out.
        spelling: id to the bytes it stands for, control tokens like any other.
        control: text of each control token.
        prefix_ids, suffix_ids: what `add_special` puts around a text.
        strip_space: the encoder put a blank before the text, so decoding drops one from the start.
    """

    size: int
    text: Callable[[int], str | None]
    spelling: Callable[[int], bytes]
    control: Mapping[str, ControlToken]
    bos_id: int | None = None
    eos_id: int | None = None
    eos_ids: frozenset[int] = frozenset()
    prefix_ids: tuple[int, ...] = ()
    suffix_ids: tuple[int, ...] = ()
    strip_space: bool = False
    named: Mapping[str, str] = field(default_factory=dict)


class Tokenizer:
    """Encodes text and decodes ids. Immutable after construction; safe to share between threads."""

    def __init__(self, encoder: Encoder, table: TokenTable) -> None:
        self._encoder = encoder
        self._table = table
        self._control_ids = frozenset(control.token_id for control in table.control.values())
        self._control_at = {control.token_id: control for control in table.control.values()}
        self._matcher = LiteralMatcher({text: control.token_id for text, control in table.control.items()})
        self._spellings: list[bytes | None] = [None] * table.size

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        return self._table.size

    @property
    def bos_id(self) -> int | None:
        """Begin-of-sequence id, if the vocabulary has one."""
        return self._table.bos_id

    @property
    def eos_id(self) -> int | None:
        """The end-of-sequence id that the model file names."""
        return self._table.eos_id

    @property
    def eos_ids(self) -> frozenset[int]:
        """Every id that ends an answer: end of sequence, and end of turn under the names in use."""
        return self._table.eos_ids

    @property
    def adds_bos(self) -> bool:
        """Whether `add_special` begins a text with `bos_id`."""
        return self.bos_id is not None and self.bos_id in self._table.prefix_ids

    @property
    def strips_space(self) -> bool:
        """Whether decoding drops one blank from the start of a text, which encoding had put there."""
        return self._table.strip_space

    @property
    def named_tokens(self) -> Mapping[str, str]:
        """Texts of named tokens for chat templates: "bos_token", "eos_token" ..., as far as the vocabulary has them."""
        return self._table.named

    @property
    def control_matcher(self) -> LiteralMatcher:
        """Finds the texts of control tokens."""
        return self._matcher

    @property
    def control_texts(self) -> frozenset[str]:
        """Texts of all control tokens."""
        return frozenset(self._table.control)

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """Ids of `text`.

        Args:
            text: any Unicode text without lone surrogates.
            add_special: put the begin and end tokens around it that the model file asks for.
            parse_special: control tokens written in the text become those tokens. Only for text of our own making,
                such as a rendered template; never for what a user typed.

        Raises:
            UnencodableTextError: `text` holds a lone surrogate.
        """
        ids = self.encode_fragments(self.split_control(text) if parse_special else [text])
        if add_special:
            return [*self._table.prefix_ids, *ids, *self._table.suffix_ids]
        return ids

    def split_control(self, text: str) -> list[str | int]:
        """Cut `text` at its control tokens: plain pieces as str, control tokens as ids, in order."""
        fragments: list[str | int] = []
        position = 0
        for start, end, token_id in self._matcher.find(text):
            control = self._control_at[token_id]
            piece = text[position:start]
            if start > position:
                fragments.append(piece.rstrip() if control.lstrip else piece)
            fragments.append(token_id)
            position = max(end, position)
            if control.rstrip:
                while text[position : position + 1].isspace():
                    position += 1
        if position < len(text):
            fragments.append(text[position:])
        return fragments

    def encode_fragments(self, fragments: Iterable[str | int]) -> list[int]:
        """Ids of what `split_control` returns: plain pieces are encoded, ids pass through.

        Raises:
            UnencodableTextError: a piece holds a lone surrogate.
        """
        ids: list[int] = []
        at_start = True
        for fragment in fragments:
            if isinstance(fragment, int):
                ids.append(fragment)
            elif fragment:
                refuse_surrogates(fragment)
                ids += self._encoder.encode(fragment, at_start=at_start)
            at_start = False
        return ids

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Text of `ids`; bytes that are not UTF-8 become U+FFFD, as `bytes.decode("utf-8", "replace")` does.

        Args:
            ids: any ids of the vocabulary.
            skip_special: leave control tokens out; otherwise they show as the file spells them.

        Raises:
            TokenizerError: an id is not in the vocabulary.
        """
        data = b"".join([self.visible_bytes(token_id, skip_special=skip_special) for token_id in ids])
        if self._table.strip_space and data[:1] == b" ":
            data = data[1:]
        return data.decode("utf-8", "replace")

    def visible_bytes(self, token_id: int, *, skip_special: bool = True) -> bytes:
        """Bytes that `token_id` adds to decoded text.

        Raises:
            TokenizerError: the id is not in the vocabulary.
        """
        if skip_special and token_id in self._control_ids:
            return b""
        if not 0 <= token_id < self._table.size:
            raise self._unknown_id(token_id)
        spelling = self._spellings[token_id]
        if spelling is None:
            spelling = self._spellings[token_id] = self._table.spelling(token_id)
        return spelling

    def token_bytes(self, token_id: int) -> bytes:
        """Bytes that a token stands for; b"" for a control token.

        Raises:
            TokenizerError: the id is not in the vocabulary.
        """
        return self.visible_bytes(token_id)

    def token_text(self, token_id: int) -> str:
        """The vocabulary entry as the model file spells it ("Ġthe", "▁the", "<0x0A>", "<|im_end|>").

        Raises:
            TokenizerError: the id is not in the vocabulary.
        """
        if not 0 <= token_id < self._table.size:
            raise self._unknown_id(token_id)
        return self._table.text(token_id) or ""

    def is_special(self, token_id: int) -> bool:
        """Whether the token is a control token.

        Raises:
            TokenizerError: the id is not in the vocabulary.
        """
        if not 0 <= token_id < self._table.size:
            raise self._unknown_id(token_id)
        return token_id in self._control_ids

    def _unknown_id(self, token_id: int) -> TokenizerError:
        return TokenizerError(
            f"Token id {token_id} is not in the vocabulary of {self._table.size} tokens.",
            f"Use ids from 0 to {self._table.size - 1}.",
        )


def refuse_surrogates(text: str) -> None:
    """Check that `text` is Unicode that UTF-8 can carry.

    Raises:
        UnencodableTextError: it holds a lone surrogate.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UnencodableTextError(
            f"The text holds a lone surrogate, U+{ord(text[error.start]):04X}, at character {error.start}.",
            "Send well-formed Unicode text.",
        ) from None
