"""How an engine speculates, as one value."""

from dataclasses import dataclass

from vivace.speculate.policy import POLICIES
from vivace.speculate.proposers import PROPOSERS
from vivace.types.errors import ConfigError

MOST_DRAFTS = 16


@dataclass(frozen=True, slots=True)
class SpeculationConfig:
    """Settings of a speculator.

    Args:
        proposers: rows of PROPOSERS; of several guesses the one that promises most is taken.
        policy: a row of POLICIES.
        max_drafts: most drafts of one sequence in a step, 1 to 16; the number of the policy `fixed`.
    """

    proposers: tuple[str, ...] = ("ngram",)
    policy: str = "measured"
    max_drafts: int = 15

    def __post_init__(self) -> None:
        if not self.proposers:
            raise ConfigError("Speculation has no proposer.", f"Name some of: {', '.join(PROPOSERS)}.")
        for name in self.proposers:
            if name not in PROPOSERS:
                raise ConfigError(f"There is no proposer {name!r}.", f"Known are: {', '.join(PROPOSERS)}.")
        if self.policy not in POLICIES:
            raise ConfigError(f"There is no draft policy {self.policy!r}.", f"Known are: {', '.join(POLICIES)}.")
        if isinstance(self.max_drafts, bool) or not isinstance(self.max_drafts, int):
            raise ConfigError(f"The number of drafts is {self.max_drafts!r}.", "Give a whole number.")
        if not 1 <= self.max_drafts <= MOST_DRAFTS:
            raise ConfigError(f"The number of drafts is {self.max_drafts}.", f"Give 1 to {MOST_DRAFTS}.")
