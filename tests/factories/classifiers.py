"""Functions that a server may be told to ask: they know one bad word."""

from collections.abc import Sequence

BAD_TOKEN = 1


def of_text(text: str) -> float:
    return 0.9 if "bad" in text.lower() else 0.1


async def of_text_later(text: str) -> bool:
    return "bad" in text.lower()


def of_tokens(token_ids: Sequence[int]) -> bool:
    return BAD_TOKEN in token_ids


def broken(text: str) -> float:
    raise RuntimeError("the classifier is gone")
