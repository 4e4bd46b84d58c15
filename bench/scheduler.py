"""Time that Python spends on one decode step beside the model: deciding, building the arrays, committing.

    python bench/scheduler.py [--sequences 1 16 256 1000] [--steps 300] [--json]

Every sequence is a stream that gets one token a step; tokens are made up, nothing is computed. The median and the 99th
percentile of a step are printed in milliseconds; sampling is not part of them (see bench/sampler.py).
"""

import argparse
import gc
import json
import time

import numpy as np

from vivace.cache.block_pool import BlockPool
from vivace.engine.runner import build_batch
from vivace.schedule.config import SchedulerConfig
from vivace.schedule.scheduler import Scheduler
from vivace.types.request import GenerationRequest, StopParams
from vivace.types.step import Draw, StepResult

STAGES = ("schedule", "build_batch", "commit")


def busy_scheduler(num_sequences: int, num_steps: int, prompt_length: int) -> Scheduler:
    """A scheduler whose streams have all read their prompts."""
    rows = num_sequences * (prompt_length + 16) + 1
    config = SchedulerConfig(rows, num_sequences, max_prompt_tokens_beside_streams=rows)
    blocks_each = -(-(prompt_length + num_steps + 64) // 16)
    scheduler = Scheduler(config, BlockPool(2 * num_sequences * blocks_each))
    for index in range(num_sequences):
        prompt = tuple((index + position) % 1000 for position in range(prompt_length + index % 16))
        stopping = StopParams(max_tokens=num_steps + 16)
        scheduler.add(GenerationRequest(f"request-{index}", prompt, stopping=stopping), seed=index)
    plan = scheduler.schedule()
    scheduler.commit(plan, made_up(num_sequences))
    return scheduler


def made_up(count: int) -> StepResult:
    """Draws of a step that computed nothing."""
    return StepResult(tuple(Draw(7) for _ in range(count)))


def measure(num_sequences: int, num_steps: int) -> dict[str, float]:
    """Milliseconds of a step and of its stages."""
    scheduler = busy_scheduler(num_sequences, num_steps, prompt_length=64)
    spent = np.zeros((num_steps, len(STAGES)))
    for step in range(num_steps):
        start = time.perf_counter()
        plan = scheduler.schedule()
        planned = time.perf_counter()
        build_batch(plan, scheduler.running)
        built = time.perf_counter()
        result = made_up(len(plan.shares))
        before_commit = time.perf_counter()
        scheduler.commit(plan, result)
        spent[step] = planned - start, built - planned, time.perf_counter() - before_commit
        assert len(plan.shares) == num_sequences
    whole = spent.sum(axis=1) * 1e3
    stages = dict(zip(STAGES, np.median(spent, axis=0) * 1e3, strict=True))
    return {"median_ms": float(np.median(whole)), "p99_ms": float(np.percentile(whole, 99))} | stages


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=int, nargs="+", default=[1, 16, 256, 1000])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    gc.freeze()
    results = {count: measure(count, options.steps) for count in options.sequences}
    if options.json:
        print(json.dumps(results))
        return
    print(f"{'sequences':>9}  {'median':>8}  {'p99':>8}  " + "  ".join(f"{stage:>11}" for stage in STAGES) + "   (ms)")
    for count, row in results.items():
        stages = "  ".join(f"{row[stage]:11.4f}" for stage in STAGES)
        print(f"{count:9d}  {row['median_ms']:8.4f}  {row['p99_ms']:8.4f}  {stages}")


if __name__ == "__main__":
    main()
