"""What drafts did, counted turn by turn: for one answer, for a kind of text, for a server."""

from dataclasses import dataclass, field

from vivace.types.speculation import SpeculationUsage

TOKENS_OF_A_SPAN = 50
MAX_SPANS = 256  # of drafts over time; an answer that is longer shows its first 12,800 tokens


@dataclass(slots=True)
class TurnTally:
    """Counts of turns; a turn is one stream in one step. Fields as in SpeculationUsage."""

    num_turns: int = 0
    num_tokens: int = 0
    num_drafted: int = 0
    num_accepted: int = 0
    cost: float = 0.0
    tried_at: list[int] = field(default_factory=list)
    accepted_at: list[int] = field(default_factory=list)
    _spans: list[float] = field(default_factory=list)
    _span_turns: int = 0
    _span_drafts: int = 0

    @property
    def speedup(self) -> float:
        """Tokens a turn over its cost: against plain decoding, as the measured costs have it; 1 without any turn."""
        return self.num_tokens / self.cost if self.cost else 1.0

    def note_plain(self, num_turns: int, cost: float) -> None:
        """So many turns without drafts, a token and a cost each."""
        before = self.num_tokens // TOKENS_OF_A_SPAN
        self.num_turns += num_turns
        self.num_tokens += num_turns
        self.cost += cost * num_turns
        self._span_turns += num_turns
        if self.num_tokens // TOKENS_OF_A_SPAN > before:
            self._end_span()

    def note(self, num_drafts: int, num_tokens: int, cost: float) -> None:
        """A turn with so many drafts brought so many tokens at so many plain turns' cost."""
        num_accepted = min(num_tokens - 1, num_drafts)
        before = self.num_tokens // TOKENS_OF_A_SPAN
        self.num_turns += 1
        self.num_tokens += num_tokens
        self.num_drafted += num_drafts
        self.num_accepted += num_accepted
        self.cost += cost
        while len(self.tried_at) < num_drafts:
            self.tried_at.append(0)
            self.accepted_at.append(0)
        for position in range(min(num_drafts, num_accepted + 1)):
            self.tried_at[position] += 1
            self.accepted_at[position] += position < num_accepted
        self._span_turns += 1
        self._span_drafts += num_drafts
        if self.num_tokens // TOKENS_OF_A_SPAN > before:
            self._end_span()

    def _end_span(self) -> None:
        if len(self._spans) < MAX_SPANS:
            self._spans.append(self._span_drafts / self._span_turns)
        self._span_turns = self._span_drafts = 0

    def usage(self) -> SpeculationUsage:
        """The counts as a value."""
        rest = [self._span_drafts / self._span_turns] if self._span_turns and len(self._spans) < MAX_SPANS else []
        return SpeculationUsage(
            self.num_turns,
            self.num_tokens,
            self.num_drafted,
            self.num_accepted,
            tuple(self.tried_at),
            tuple(self.accepted_at),
            tuple(round(mean, 3) for mean in self._spans + rest),
            self.cost,
        )
