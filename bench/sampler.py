"""Time to draw one token from one row of logits, by kind of sampling and size of vocabulary.

    python bench/sampler.py [--vocab 49152 262144] [--json]

Microseconds, best of several runs; the logits are normal with deviation 3, the history 1,000 tokens long. "flat" is the
worst case: a temperature so high that the nucleus holds thousands of tokens.
"""

import argparse
import json
import timeit

import numpy as np

from vivace.sample.sampler import Sampler
from vivace.sample.settings import DrawRow, DrawSettings
from vivace.types.request import SamplingParams

KINDS: dict[str, tuple[SamplingParams, int | None]] = {
    "greedy": (SamplingParams(temperature=0), None),
    "greedy, repetition penalty": (SamplingParams(temperature=0, repetition_penalty=1.1), None),
    "greedy, 5 logprobs": (SamplingParams(temperature=0), 5),
    "temperature": (SamplingParams(), None),
    "top-k 40, top-p 0.9": (SamplingParams(temperature=0.8, top_k=40, top_p=0.9), None),
    "top-p 0.9": (SamplingParams(temperature=0.8, top_p=0.9), None),
    "min-p 0.05": (SamplingParams(min_p=0.05), None),
    "top-p 0.95, flat": (SamplingParams(temperature=1.5, top_p=0.95), None),
}
NUMBER, REPEATS = 50, 7


def measure(vocab_size: int) -> dict[str, float]:
    """Microseconds of each kind."""
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 3, (1, vocab_size)).astype(np.float32)
    history = generator.integers(0, vocab_size, 1000).astype(np.int32)
    sampler = Sampler()
    figures = {}
    for name, (params, num_logprobs) in KINDS.items():
        rows = [DrawRow(DrawSettings(params, 1, 0, 500, num_logprobs), history)]
        best = min(timeit.repeat(lambda rows=rows: sampler.sample(logits, rows), number=NUMBER, repeat=REPEATS))
        figures[name] = best / NUMBER * 1e6
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocab", type=int, nargs="+", default=[49_152, 262_144])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results = {vocab_size: measure(vocab_size) for vocab_size in options.vocab}
    if options.json:
        print(json.dumps(results))
        return
    print(f"{'microseconds a row':28}" + "".join(f"{vocab_size:>10,}" for vocab_size in results))
    for name in KINDS:
        print(f"{name:28}" + "".join(f"{figures[name]:10.0f}" for figures in results.values()))


if __name__ == "__main__":
    main()
