"""What an answer has to look like: a grammar, and the tokens that it lets through as an answer grows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from vivace.types.errors import EngineError

if TYPE_CHECKING:  # a command line that asks nothing of a grammar has no use for arrays
    import numpy as np
    from numpy.typing import NDArray


GrammarKind = Literal["json", "regex", "grammar"]
"""A JSON schema; a regular expression of the whole answer, in Rust's syntax; a grammar in Lark's."""


class TokenMask(Protocol):
    """A grammar at work on one answer. What it says depends on the answer's tokens alone, never on calls before."""

    def allowed(self, answer: "NDArray[np.int32]") -> "NDArray[np.bool_]":
        """Which tokens may follow an answer so far; the end of the answer is one of them where it may end.

        Args:
            answer: int32 (n,).

        Returns:
            bool (vocab,).

        Raises:
            EngineError: the answer is none of the grammar.
            RequestError: the grammar asks for more than can be worked out.
        """
        ...

    def num_valid(self, answer: "NDArray[np.int32]", drafts: Sequence[int]) -> int:
        """How many of the drafts that follow an answer the grammar lets through, the first refused one ending them."""
        ...


@runtime_checkable
class Grammar(Protocol):
    """A grammar that was read and checked; may be shared."""

    @property
    def source(self) -> "GrammarSource":
        """What it was read from."""
        ...

    def follow(self) -> TokenMask:
        """Begin with a new answer."""
        ...


@dataclass(frozen=True, slots=True)
class GrammarSource:
    """A grammar as it was written: what is left of one in a journal. Stands where a Grammar stands until it is read."""

    kind: GrammarKind
    text: str

    @property
    def source(self) -> "GrammarSource":
        """Itself."""
        return self

    def follow(self) -> TokenMask:
        """A text cannot be followed.

        Raises:
            EngineError: always.
        """
        raise EngineError("The grammar of a request was not read before it began.", "This is a fault of vivace.")
