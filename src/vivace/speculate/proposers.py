"""The table of proposers, and the names that options offer."""

from collections.abc import Callable

from vivace.speculate.ngram import NgramProposer
from vivace.speculate.proposal import Proposer
from vivace.speculate.suffix import SuffixProposer

LOOK_UPS: dict[str, Callable[[], Proposer]] = {
    "ngram": NgramProposer,
    "suffix": SuffixProposer,
}
"""Proposers that look up what was said."""

MODELS = ("draft", "self")
"""Proposers that compute: a smaller model, and the first layers of the target; `drafter.ModelDrafter` runs both."""

PROPOSERS = (*LOOK_UPS, *MODELS)

CHOICES: dict[str, tuple[str, ...]] = {
    "off": (),
    "ngram": ("ngram",),
    "suffix": ("suffix",),
    "draft": ("draft",),
    "self": ("self",),
    "auto": ("ngram", "suffix"),
}
"""What an option may say, and the proposers it means; `auto` takes up a draft model and an exit that are configured."""
