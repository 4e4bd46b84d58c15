"""How many drafts each stream gets in a step: `fixed`, `window` (the chapter's rule) or `measured`."""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from vivace.speculate.acceptance import UNLIKELY
from vivace.speculate.costs import StepCosts

WINDOW_TOKENS = 20
WINDOW_HIGH, WINDOW_LOW = 0.8, 0.5
WINDOW_MOST, WINDOW_LEAST = 8, 2
MARGIN = 1.03  # drafts must promise so much more than none: estimates err
MARGIN_OF_COMPANY = 0.0015  # and more in company, where a draft costs nearly what it may bring
PLAIN_EVERY, DRAFTED_EVERY = 64, 256  # steps after which the other choice's cost is measured again


@dataclass(slots=True)
class WindowLength:
    """Draft length by the chapter's rule (18.1.4): of the last 20 verified drafts, the share that stood moves it."""

    length: int = 4
    _recent: deque[bool] = field(default_factory=lambda: deque(maxlen=WINDOW_TOKENS))

    def note(self, num_drafts: int, num_accepted: int) -> None:
        """Of so many verified drafts the first so many stood."""
        self._recent.extend(index < num_accepted for index in range(num_drafts))
        share = sum(self._recent) / len(self._recent) if self._recent else (WINDOW_HIGH + WINDOW_LOW) / 2
        if share > WINDOW_HIGH:
            self.length = min(self.length + 1, WINDOW_MOST)
        elif share < WINDOW_LOW:
            self.length = max(self.length - 1, WINDOW_LEAST)


@dataclass(frozen=True, slots=True)
class Candidate:
    """What one stream could verify.

    Args:
        cumulative: probability that the drafts up to each position all stand; falls, one entry a draft that fits.
        window_length: what the chapter's rule says for this stream.
    """

    cumulative: tuple[float, ...]
    window_length: int


@dataclass(frozen=True, slots=True)
class Choice:
    """Drafts for each candidate, and the tokens over cost that they promise (comparable within one step)."""

    counts: list[int]
    rate: float = 0.0


class Policy(Protocol):
    """Chooses draft lengths for all streams of a step together, as they share its cost."""

    @property
    def weighs_costs(self) -> bool:
        """Whether `rate` means something, so that ways of guessing can be weighed against one another."""
        ...

    def choose(
        self,
        candidates: Sequence[Candidate],
        num_rows: int,
        budget: int,
        costs: StepCosts,
        *,
        extra: float = 0.0,
        most: float = math.inf,
    ) -> Choice:
        """Drafts for each candidate.

        Args:
            candidates: one a stream.
            num_rows: rows of the step without drafts.
            budget: most drafts in all.
            costs: of steps by rows.
            extra: what the guesses themselves cost, in the unit of `costs`, if any draft is taken.
            most: what drafts and guesses may cost at most, in the same unit.
        """
        ...


@dataclass(frozen=True, slots=True)
class FixedPolicy:
    """The same number of drafts always, where so many are guessed."""

    num_drafts: int
    weighs_costs: bool = False

    def choose(
        self,
        candidates: Sequence[Candidate],
        num_rows: int,
        budget: int,
        costs: StepCosts,
        *,
        extra: float = 0.0,
        most: float = math.inf,
    ) -> Choice:
        """See Policy."""
        return Choice(_within(budget, [min(self.num_drafts, len(one.cumulative)) for one in candidates]))


@dataclass(frozen=True, slots=True)
class WindowPolicy:
    """The chapter's rule; it never goes below 2 drafts and does not know what a step costs."""

    weighs_costs: bool = False

    def choose(
        self,
        candidates: Sequence[Candidate],
        num_rows: int,
        budget: int,
        costs: StepCosts,
        *,
        extra: float = 0.0,
        most: float = math.inf,
    ) -> Choice:
        """See Policy."""
        return Choice(_within(budget, [min(one.window_length, len(one.cumulative)) for one in candidates]))


@dataclass(frozen=True, slots=True)
class MeasuredPolicy:
    """Most expected tokens per millisecond, drafts of all streams weighed against one another.

    Drafts are ranked by the probability that they bring a token, and that number of them is taken at which expected
    tokens over the cost of a step of so many rows is largest; none, unless that beats plain decoding by MARGIN. What
    prompt rows cost is spent anyway and left out: otherwise a step that is dear already would make drafts look cheap.
    Once in PLAIN_EVERY steps a plain one is measured, and once in DRAFTED_EVERY one with a single draft: of the time,
    that costs at most 1/64 and 1/256 of what the worse choice loses.
    """

    weighs_costs: bool = True

    def choose(
        self,
        candidates: Sequence[Candidate],
        num_rows: int,
        budget: int,
        costs: StepCosts,
        *,
        extra: float = 0.0,
        most: float = math.inf,
    ) -> Choice:
        """See Policy."""
        num_streams = len(candidates)
        chosen = [0] * num_streams
        if num_streams == 0:
            return Choice(chosen)
        spent_anyway = prompt_cost(num_streams, num_rows, costs)
        cost_of_none = costs.of(num_streams)
        plain = num_streams / cost_of_none
        ranked = sorted(
            (-probability, position, stream)
            for stream, candidate in enumerate(candidates)
            for position, probability in enumerate(candidate.cumulative)
            if probability >= UNLIKELY
        )[:budget]
        if not ranked:
            return Choice(chosen, plain)
        best_count, best_rate = 0, plain * margin_of(num_streams)
        expected = float(num_streams)
        for count, (negative_probability, _, _) in enumerate(ranked, 1):
            expected -= negative_probability
            cost = costs.of(num_rows + count) - spent_anyway + extra
            rate = expected / cost
            if rate > best_rate and cost - cost_of_none <= most:
                best_count, best_rate = count, rate
        rate = best_rate if best_count else plain
        if not extra and num_rows == num_streams:
            best_count = _with_probes(best_count, num_rows, costs)
        for _, _, stream in ranked[:best_count]:
            chosen[stream] += 1
        return Choice(chosen, rate)


def margin_of(num_streams: int) -> float:
    """How many times plain decoding drafts must promise in such company."""
    return MARGIN + MARGIN_OF_COMPANY * (num_streams - 1) ** 2


def could_pay(num_streams: int, max_drafts: int, costs: StepCosts) -> bool:
    """Whether drafts that all stood would pass the margin in a step of streams alone: if not, none is taken there."""
    least = num_streams / costs.of(num_streams) * margin_of(num_streams)
    rows = range(num_streams + 1, num_streams * (1 + max_drafts) + 1)
    return any(count / costs.of(count) > least for count in rows)


def prompt_cost(num_streams: int, num_rows: int, costs: StepCosts) -> float:
    """What the rows of prompts add to a step that has so many rows without drafts."""
    return costs.of(num_rows) - costs.of(num_streams) if num_rows > num_streams else 0.0


def _with_probes(count: int, num_rows: int, costs: StepCosts) -> int:
    """The number of drafts, or that of a step whose cost was not seen for long."""
    if count and costs.age(num_rows) >= PLAIN_EVERY:
        return 0
    if not count and costs.age(num_rows + 1) >= DRAFTED_EVERY:
        return 1
    return count


POLICIES: dict[str, Callable[[int], Policy]] = {
    "fixed": FixedPolicy,
    "window": lambda _: WindowPolicy(),
    "measured": lambda _: MeasuredPolicy(),
}
"""Policies by name; each is made with the configured number of drafts."""


def _within(budget: int, wanted: Sequence[int]) -> list[int]:
    """Wanted lengths cut, stream by stream, to the budget."""
    chosen = []
    for length in wanted:
        chosen.append(min(length, budget))
        budget -= chosen[-1]
    return chosen
