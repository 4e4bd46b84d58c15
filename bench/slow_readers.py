"""What 500 slow readers cost: memory, the engine's time, and the readers beside them.

python bench/slow_readers.py [--slow 500] [--tokens 100] [--token-bytes 2000]

A server in a process of its own; 16 readers that read all there is, and 500 that take 64 bytes a second or nothing.
The same number of streams with readers that all read fast stands beside it: what the streams cost anyway.
"""

import argparse
import os
import sys
from pathlib import Path
from statistics import median, quantiles

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from factories.slow_readers import Crowd, Sight, watch

MIB = 2**20


def describe(name: str, crowd: Crowd, sight: Sight) -> None:
    """Print a row."""
    grown = sight.peak_bytes - sight.base_bytes
    gaps_ms = [1e3 * gap for gap in sight.gaps_s]
    print(
        f"{name:5} readers: memory {sight.base_bytes / MIB:.0f} -> {sight.peak_bytes / MIB:.0f} MiB "
        f"({grown / 1024 / (crowd.num_slow + crowd.num_fast):.0f} KiB a stream); "
        f"fast readers: gap median {median(gaps_ms):.1f}, p99 {quantiles(gaps_ms, n=100)[98]:.1f} ms; "
        f"engine late: p99 {1e3 * quantiles(sight.late_s, n=100)[98]:.1f}, most {1e3 * max(sight.late_s):.1f} ms; "
        f"terminal events {dict(sight.ends)}, {sight.num_ended} for {sight.num_accepted} requests; "
        f"{sight.num_lost} logs lost their beginning"
    )


def main() -> None:
    """Watch both crowds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slow", type=int, default=500)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--token-bytes", type=int, default=2000)
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} cores; {arguments.tokens} tokens of {arguments.token_bytes} bytes, five a second")
    for name, read_all in (("fast", True), ("slow", False)):
        crowd = Crowd(arguments.slow, 16, arguments.tokens, arguments.token_bytes, slow_read_all=read_all)
        describe(name, crowd, watch(crowd))


if __name__ == "__main__":
    main()
