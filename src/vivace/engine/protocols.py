"""What the engine's front needs of `text/`: a tokenizer and a chat template, as protocols, so tests can bring fakes."""

from collections.abc import Sequence
from typing import Protocol

from vivace.types.request import ChatMessage


class TextTokenizer(Protocol):
    """Text to token ids and back; `vivace.text.tokenizer.Tokenizer` fulfils it."""

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        ...

    @property
    def eos_ids(self) -> frozenset[int]:
        """Ids that end an answer."""
        ...

    def encode(self, text: str, *, add_special: bool = True) -> list[int]:
        """Token ids of a text; `add_special` puts the model's begin-of-sequence token in front if it wants one."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids."""
        ...

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes one token stands for."""
        ...


class TextTemplate(Protocol):
    """Conversation to token ids; `vivace.text.template.ChatTemplate` fulfils it."""

    def encode_chat(self, messages: Sequence[ChatMessage]) -> list[int]:
        """Token ids of a conversation, ready for the assistant's turn."""
        ...
