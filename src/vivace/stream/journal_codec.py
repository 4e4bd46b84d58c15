"""How journals write tokens and progress down: 32-bit numbers, and JSON without the tokens."""

from array import array
from collections.abc import Mapping, Sequence

import msgspec

from vivace.stream.journal import Progress
from vivace.types.events import FinishReason


class _SavedProgress(msgspec.Struct, array_like=True):
    num_chars: int
    attempt: int
    finish_reason: FinishReason | None


def encode_progress(progress: Mapping[int, Progress]) -> bytes:
    """How far each choice is, its tokens left out."""
    return msgspec.json.encode(
        {
            choice: _SavedProgress(known.num_chars, known.attempt, known.finish_reason)
            for choice, known in progress.items()
        }
    )


def decode_progress(encoded: bytes) -> dict[int, Progress]:
    """What `encode_progress` wrote, without tokens.

    Raises:
        msgspec.MsgspecError: it was not that.
    """
    saved = msgspec.json.decode(encoded, type=dict[int, _SavedProgress])
    return {
        choice: Progress(known.num_chars, finish_reason=known.finish_reason, attempt=known.attempt)
        for choice, known in saved.items()
    }


def encode_tokens(token_ids: Sequence[int]) -> bytes:
    """Token ids as 32-bit numbers."""
    return array("i", token_ids).tobytes()


def decode_tokens(encoded: bytes) -> list[int]:
    """What `encode_tokens` wrote."""
    ids = array("i")
    ids.frombytes(encoded)
    return ids.tolist()


def encode_pairs(token_ids: Mapping[int, Sequence[int]]) -> bytes:
    """Token ids by choice as pairs of 32-bit numbers: choice, token."""
    return array("i", [part for choice, ids in token_ids.items() for each in ids for part in (choice, each)]).tobytes()


def decode_pairs(encoded: bytes) -> list[tuple[int, int]]:
    """What `encode_pairs` wrote, piece after piece."""
    ids = decode_tokens(encoded)
    return list(zip(ids[::2], ids[1::2], strict=True))
