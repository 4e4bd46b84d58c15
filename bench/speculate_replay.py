"""Policies of speculation replayed on recorded answers: no model is run, and the time of a step is read off a table.

    python bench/speculate_replay.py RECORD [--streams 1 4 16] [--fixed 2 3 7 15] [--noise 0.05] [--look-ms 0.1]

RECORD is of `bench/speculate_record.py`. Drafts are right where they equal the recorded answer, as they are in the
engine. So what a policy brings, what each fixed number of drafts would have brought, and what nobody can surpass who
asks the same proposers (`ceiling`: knows which drafts stand) come out the same on every machine and in every company.
Not counted are prompts. Looking takes `--look-ms` for each stream that is looked at.
"""

import argparse
import itertools
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speculate_report import ADAPTIVE, CEILING, PLAIN, print_report, told_of
from vivace.files.catalogue import resolve
from vivace.files.open import open_model
from vivace.plan.speculate import interpolate
from vivace.speculate.config import SpeculationConfig
from vivace.speculate.costs import StepTimes
from vivace.speculate.measure_costs import START_ROWS
from vivace.speculate.proposers import LOOK_UPS
from vivace.speculate.speculator import EngineSpeculator
from vivace.text.build import build_tokenizer
from vivace.types.draft import DecodeStep, DraftPlace

CONTEXT = 128  # that the recorded step times are of


@dataclass(slots=True)
class Answer:
    """One recorded answer, and how far the replay has come."""

    tokens: NDArray[np.int32]
    num_prompt: int
    known: int = 0

    @property
    def has_ended(self) -> bool:
        """Whether all of it was said."""
        return self.known >= len(self.tokens)

    def stood(self, drafts: Sequence[int]) -> int:
        """How many of the drafts are right."""
        return next((i for i, draft in enumerate(drafts) if draft != self.tokens[self.known + i]), len(drafts))


class StepTable:
    """Milliseconds of a step by rows, with a noise that is the same for everybody who sees the same steps."""

    def __init__(self, step_ms: dict[int, float], noise: float = 0.0, seed: int = 0) -> None:
        self.step_ms = step_ms
        self._noise = noise
        self._random = random.Random(seed)

    def honest(self, rows: int) -> float:
        """Without noise."""
        return interpolate(self.step_ms, rows)

    def noisy(self, rows: int) -> float:
        """As a clock would tell it."""
        return self.honest(rows) * float(np.exp(self._random.gauss(0.0, self._noise)))


@dataclass(slots=True)
class SteppedClock:
    """Stands still but while looking: two readings a look, `look_ms` apart for each stream."""

    look_ms: float
    num_streams: int = 1
    now_ns: int = 0

    def __call__(self) -> int:
        """The next reading."""
        self.now_ns += int(self.look_ms * self.num_streams * 1e6)
        return self.now_ns


@dataclass(slots=True)
class Sums:
    """What a replay brought."""

    seconds: float = 0.0
    num_steps: int = 0
    num_tokens: int = 0
    num_drafted: int = 0
    num_accepted: int = 0
    turns: list[tuple[int, int, int, int]] = field(default_factory=list)  # (answer, known, drafts, stood)


def replay(
    answers: Sequence[Answer],
    num_streams: int,
    speculator: EngineSpeculator | None,
    table: StepTable,
    clock: SteppedClock,
    *,
    knows_all: bool = False,
) -> Sums:
    """Answer all, so many at a time.

    Args:
        answers: in order; a seat that is free is taken by the next.
        num_streams: seats.
        speculator: asked for drafts; None: nobody is.
        table: what steps take.
        clock: of the speculator.
        knows_all: drafts are cut to what brings most, by one who knows which stand.
    """
    sums = Sums()
    waiting = [(number, Answer(one.tokens, one.num_prompt, one.num_prompt + 1)) for number, one in enumerate(answers)]
    seats: list[tuple[int, Answer]] = []
    while waiting or seats:
        while waiting and len(seats) < num_streams:
            seats.append(waiting.pop(0))
        clock.num_streams = len(seats)
        looked_ms, drafts = 0.0, [()] * len(seats)
        if speculator is not None and not speculator.rests(len(seats)):
            drafts = speculator.propose([place_of(*seat, speculator.max_drafts) for seat in seats], len(seats), 256)
            looked_ms = 0.0 if knows_all else clock.look_ms * len(seats)
        stood = [one.stood(mine) for (_, one), mine in zip(seats, drafts, strict=True)]
        if knows_all:
            stood = best_of(stood, len(seats), table)
            drafts = [mine[:count] for mine, count in zip(drafts, stood, strict=True)]
        rows, tokens = len(seats) + sum(map(len, drafts)), len(seats) + sum(stood)
        sums.seconds += (table.honest(rows) + looked_ms) / 1e3
        sums.num_steps += 1
        sums.num_tokens += tokens
        sums.num_drafted += rows - len(seats)
        sums.num_accepted += tokens - len(seats)
        pairs = CONTEXT * rows
        if speculator is not None:
            speculator.note_step(DecodeStep(rows, len(seats), pairs, tokens, table.noisy(rows) + looked_ms))
        for (number, one), mine, count in zip(seats, drafts, stood, strict=True):
            sums.turns.append((number, one.known, len(mine), count))
            one.known += 1 + count
            if one.has_ended and speculator is not None:
                speculator.end(str(number), 0, len(one.tokens) - one.num_prompt)
        seats = [seat for seat in seats if not seat[1].has_ended]
    return sums


def place_of(number: int, one: Answer, most: int) -> DraftPlace:
    """Where drafts of an answer would stand."""
    room = max(0, min(most, len(one.tokens) - one.known - 1))
    return DraftPlace(number, one.tokens[: one.known], one.num_prompt, room, "", (str(number), 0))


def best_of(stood: list[int], num_streams: int, table: StepTable) -> list[int]:
    """How many of the right drafts to take: whole numbers of all that give most tokens a millisecond."""
    total = sum(stood)
    best = max(range(total + 1), key=lambda count: (num_streams + count) / table.honest(num_streams + count))
    return cut(stood, best)


def cut(counts: Sequence[int], budget: int) -> list[int]:
    """The first `budget` drafts, seat by seat."""
    taken = []
    for count in counts:
        taken.append(min(count, budget))
        budget -= taken[-1]
    return taken


def speculators(options: argparse.Namespace, table: StepTable) -> dict[str, tuple[EngineSpeculator, SteppedClock]]:
    """All that is compared, each new."""
    rows = {f"{name} {count}": ((name,), "fixed", count) for name in LOOK_UPS for count in options.fixed}
    rows[CEILING] = (tuple(LOOK_UPS), "fixed", 15)
    rows[ADAPTIVE] = (tuple(LOOK_UPS), "measured", options.max_drafts)
    made = {}
    for name, (proposers, policy, count) in rows.items():
        clock = SteppedClock(options.look_ms)
        speculator = EngineSpeculator(SpeculationConfig(proposers, policy, count), options.decode, clock=clock)
        speculator.assume_costs(StepTimes({rows: table.honest(rows) for rows in START_ROWS}, CONTEXT))
        made[name] = (speculator, clock)
    return made


def read_record(path: Path) -> tuple[dict[str, Any], dict[str, list[Answer]]]:
    """The head of a record, and its answers by workload; those of one token are left out."""
    first, *lines = path.read_text(encoding="utf-8").splitlines()
    head = json.loads(first)
    head["step_ms"] = {int(rows): ms for rows, ms in head["step_ms"].items()}
    found: dict[str, list[Answer]] = {}
    for line in lines:
        row = json.loads(line)
        if len(row["answer"]) > 1:
            tokens = np.array([*row["prompt"], *row["answer"]], dtype=np.int32)
            found.setdefault(row["workload"], []).append(Answer(tokens, len(row["prompt"])))
    return head, found


def sums_of(
    options: argparse.Namespace, answers: list[Answer], num_streams: int, table: StepTable
) -> dict[str, object]:
    """One part, as `bench/speculate.py` keeps them."""
    plain = replay(answers, num_streams, None, table, SteppedClock(0.0))
    found = {PLAIN: plain}
    kinds = {}
    for name, (speculator, clock) in speculators(options, table).items():
        found[name] = replay(answers, num_streams, speculator, table, clock, knows_all=name == CEILING)
        if name == ADAPTIVE:
            kinds = {kind: told_of(usage) for kind, usage in speculator.report_by_kind().kinds.items()}
    return {
        "variants": {name: variant_of(sums) for name, sums in found.items()},
        "kinds": {kind: usage for kind, usage in kinds.items() if usage["num_turns"]},
    }


def variant_of(sums: Sums) -> dict[str, float]:
    """Sums in the fields of a measured part."""
    return {
        "seconds": sums.seconds,
        "num_tokens": sums.num_tokens,
        "all_seconds": sums.seconds,
        "all_tokens": sums.num_tokens,
        "num_drafted": sums.num_drafted,
        "num_accepted": sums.num_accepted,
    }


def step_times(given: Sequence[str]) -> dict[int, float]:
    """Read "1:3.34 2:3.58"."""
    return {int(rows): float(ms) for rows, ms in (pair.split(":") for pair in given)}


def main() -> None:
    """Replay and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("record", type=Path)
    parser.add_argument("--workloads", nargs="+")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--fixed", type=int, nargs="*", default=[2, 3, 7, 15])
    parser.add_argument("--max-drafts", type=int, default=15, help="of the adaptive policy")
    parser.add_argument("--noise", type=float, default=0.05, help="of the logarithm of a step's time")
    parser.add_argument("--step-ms", nargs="+", metavar="ROWS:MS", help="times of steps in place of the recorded ones")
    parser.add_argument("--look-ms", type=float, default=0.1, help="that looking takes for a stream")
    options = parser.parse_args()
    head, workloads = read_record(options.record)
    vocabulary = open_model(resolve(head["model"])).vocabulary
    assert vocabulary is not None
    options.decode = build_tokenizer(vocabulary).decode
    step_ms = step_times(options.step_ms) if options.step_ms else head["step_ms"]
    parts = []
    for (workload, answers), num_streams in itertools.product(workloads.items(), options.streams):
        if options.workloads and workload not in options.workloads:
            continue
        part = {"workload": workload, "streams": num_streams, "prompts": len(answers)}
        parts.append(part | sums_of(options, answers, num_streams, StepTable(step_ms, options.noise)))
    print_report(parts)


if __name__ == "__main__":
    main()
