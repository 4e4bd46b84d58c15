"""The table of proposers, and the names that options offer."""

from collections.abc import Callable

from vivace.speculate.ngram import NgramProposer
from vivace.speculate.proposal import Proposer
from vivace.speculate.suffix import SuffixProposer

PROPOSERS: dict[str, Callable[[], Proposer]] = {
    "ngram": NgramProposer,
    "suffix": SuffixProposer,
}

CHOICES: dict[str, tuple[str, ...]] = {
    "off": (),
    "ngram": ("ngram",),
    "suffix": ("suffix",),
    "auto": ("ngram", "suffix"),
}
"""What an option may say, and the proposers it means."""
