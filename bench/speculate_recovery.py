"""How soon adaptive speculation notices that a text has turned: from copying to new words and back again.

    python bench/speculate_recovery.py RECORD [--cases 24] [--noise 0.05] [--look-ms 0.1]

RECORD is of `bench/speculate_record.py`. Each text is put together of what the model wrote there: the copy of a
paragraph that stands in the prompt (`repeat`), an answer about something else (`mt_bench`), and the copy again. The
figures are the speed against plain decoding in each stretch, by the recorded times of steps, over all texts; `after`
tells in how many tokens the first step without drafts, or with some, came.
"""

import argparse
import statistics
from pathlib import Path

import numpy as np

from speculate_replay import CONTEXT, Answer, SteppedClock, StepTable, read_record, replay, step_times
from vivace.speculate.config import SpeculationConfig
from vivace.speculate.costs import StepTimes
from vivace.speculate.measure_costs import START_ROWS
from vivace.speculate.proposers import LOOK_UPS
from vivace.speculate.speculator import EngineSpeculator

SOON = 20  # tokens in which a turn has to be noticed
LEAST = 3 * SOON  # tokens of a piece
STRETCHES = (
    "copying",
    "20 tokens after the turn",
    "new text after them",
    "20 tokens after the turn back",
    "copying again",
)

Turn = tuple[int, int, int, int]


def texts_of(workloads: dict[str, list[Answer]], most: int) -> list[tuple[Answer, int, int]]:
    """Texts, and where each turns and turns back."""
    found = []
    for copied, other in zip(workloads["repeat"], workloads["mt_bench"], strict=False):
        copy, new = copied.tokens[copied.num_prompt :], other.tokens[other.num_prompt :]
        if min(len(copy), len(new)) >= LEAST:
            turned = len(copied.tokens)
            found.append(
                (Answer(np.concatenate((copied.tokens, new, copy)), copied.num_prompt), turned, turned + len(new))
            )
    return found[:most]


def stretch_of(known: int, first: int, turned: int, back: int) -> int | None:
    """Index in STRETCHES of a position; None in the first tokens, which have nothing to be compared with."""
    ends = (first + SOON, turned, turned + SOON, back, back + SOON)
    place = sum(known >= end for end in ends)
    return place - 1 if place else None


def main() -> None:
    """Replay and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("record", type=Path)
    parser.add_argument("--cases", type=int, default=24)
    parser.add_argument("--noise", type=float, default=0.05)
    parser.add_argument("--step-ms", nargs="+", metavar="ROWS:MS", help="times of steps in place of the recorded ones")
    parser.add_argument("--look-ms", type=float, default=0.1)
    options = parser.parse_args()
    head, workloads = read_record(options.record)
    table = StepTable(step_times(options.step_ms) if options.step_ms else head["step_ms"], options.noise)
    clock = SteppedClock(options.look_ms)
    speculator = EngineSpeculator(SpeculationConfig(tuple(LOOK_UPS), "measured", 15), clock=clock)
    speculator.assume_costs(StepTimes({rows: table.honest(rows) for rows in START_ROWS}, CONTEXT))
    texts = texts_of(workloads, options.cases)
    sums = replay([text for text, _, _ in texts], 1, speculator, table, clock)
    spent, brought = [0.0] * len(STRETCHES), [0] * len(STRETCHES)
    stopped, began = dict[int, int](), dict[int, int]()
    for number, known, num_drafts, stood in sums.turns:
        text, turned, back = texts[number]
        place = stretch_of(known, text.num_prompt, turned, back)
        if place is not None:
            spent[place] += (table.honest(1 + num_drafts) + options.look_ms) / table.honest(1)
            brought[place] += 1 + stood
        if turned <= known < back and not num_drafts:
            stopped.setdefault(number, known - turned)
        if known >= back and num_drafts:
            began.setdefault(number, known - back)
    print(f"{len(texts)} texts\n\n| stretch | tokens | speed against plain |\n|---|---|---|")
    for name, ms, tokens in zip(STRETCHES, spent, brought, strict=True):
        print(f"| {name} | {tokens} | {tokens / ms:.2f} |")
    for name, after in (("without drafts after the turn", stopped), ("with drafts after the turn back", began)):
        values = list(after.values())
        print(f"first step {name}: {statistics.median(values):.0f} tokens, at most {max(values)}; {len(values)} texts")


if __name__ == "__main__":
    main()
