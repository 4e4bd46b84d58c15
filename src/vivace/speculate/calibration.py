"""Promise against outcome: the drafts a policy picks are those whose promise errs upwards, so promises are corrected.

Choosing the largest of many estimates picks the luckiest one. What chosen drafts were expected to bring is compared
with what they brought, and later promises are scaled by the quotient.
"""

MEMORY = 0.99  # about the last 100 turns with drafts decide
WEIGHT = 10.0  # drafts that the belief "promises are kept" is worth
LEAST, MOST = 0.3, 1.0


class Calibration:
    """One figure for an engine."""

    def __init__(self) -> None:
        self._promised = 0.0
        self._kept = 0.0
        self.factor = 1.0

    def note(self, promised: float, kept: int) -> None:
        """A turn's drafts were expected to bring so many tokens, and brought so many."""
        self._promised = self._promised * MEMORY + promised
        self._kept = self._kept * MEMORY + kept
        self.factor = min(MOST, max(LEAST, (self._kept + WEIGHT) / (self._promised + WEIGHT)))

    def apply(self, cumulative: tuple[float, ...]) -> tuple[float, ...]:
        """Promises as they are likely to be kept."""
        if self.factor == 1.0:
            return cumulative
        return tuple(probability * self.factor for probability in cumulative)
