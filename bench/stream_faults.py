"""How often a reader that comes back sees its answer broken, over a network where every connection fails.

python bench/stream_faults.py [--answers 3500] [--transport "server-sent events"] [--share 1.0]

A real server behind a TCP proxy that is late, closes, resets, half closes in both directions, or drops everything
without a word, one kind after the other, at random bytes of the answer. An answer is interrupted when its reader gives
up, or has a text that is not the whole one, or saw another number of terminal events than one. A reader that does not
come back is interrupted by the first fault of its one connection.
"""

import argparse
import asyncio
import math
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from factories.fault_runs import PIECES, READERS, FaultPlan, Report, num_ended, read_many
from factories.faulty_proxy import faulty_proxy
from factories.live_server import live_server
from factories.scripted_service import ScriptedService


def upper_bound(num_interrupted: int, num_answers: int) -> float:
    """The rate that is exceeded with a probability of 5 % at most (Clopper and Pearson, one-sided, by bisection)."""
    low, high = num_interrupted / num_answers, 1.0
    for _ in range(60):
        rate = (low + high) / 2
        terms = (
            math.comb(num_answers, k) * rate**k * (1 - rate) ** (num_answers - k) for k in range(num_interrupted + 1)
        )
        low, high = (rate, high) if sum(terms) > 0.05 else (low, rate)
    return high


def main() -> None:
    """Read answers and print what their readers saw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=3500)
    parser.add_argument("--transport", choices=READERS, default="server-sent events")
    parser.add_argument("--share", type=float, default=1.0, help="of the connections that have a fault")
    arguments = parser.parse_args()
    service, report = ScriptedService(PIECES, warm_up_passes=True), Report()
    plan, began_s = FaultPlan(random.Random(18), arguments.share), time.monotonic()
    with live_server(lambda: service) as server, faulty_proxy(server.port, plan) as proxy:
        wanted = lambda: report.num_answers < arguments.answers  # noqa: E731
        asyncio.run(read_many(proxy.url, READERS[arguments.transport], report, wanted, at_once=16))
        ended, running = num_ended(server.url)
    num_faults = proxy.happened.total()
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(proxy.happened.items()))
    rate, bound = report.num_interrupted / report.num_answers, upper_bound(report.num_interrupted, report.num_answers)
    print(f"{arguments.transport}: {report.num_answers} answers, {num_faults} faults ({kinds})")
    print(f"characters lost {report.num_lost}, doubled {report.num_doubled}")
    print(f"terminal events: {dict(report.ends)} of the readers; {ended} for {len(service.requests)} requests accepted")
    print(f"streams still running: {running}")
    print(f"interruption rate of a reader that comes back: {rate:.4%} (below {bound:.3%} with 95 % confidence)")
    print(f"{time.monotonic() - began_s:.0f} s")


if __name__ == "__main__":
    main()
