"""What speculation has done so far, as one value."""

from dataclasses import dataclass

from vivace.speculate.text_kind import TextKind
from vivace.types.speculation import SpeculationUsage


@dataclass(frozen=True, slots=True)
class SpeculationReport:
    """Figures of a server, in all and by kind of text."""

    total: SpeculationUsage
    kinds: dict[TextKind, SpeculationUsage]
