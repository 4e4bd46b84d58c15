"""Greedy answers of a model to the prompts of `bench/speculate.py`, once, for `bench/speculate_replay.py`.

    python bench/speculate_record.py --data FOLDER --out FILE [--prompts 32] [--max-tokens 96] [--model smollm2-135m]

Answers are the same alone and in company, so they are taken 16 at a time. Beside them stand the times of verifying
steps of this machine, the best measured of three tries.
"""

import argparse
import itertools
import json
from pathlib import Path

from speculate_workloads import WORKLOADS
from vivace.engine.core import Engine
from vivace.execute.native import NativeExecutor
from vivace.files.catalogue import resolve
from vivace.files.open import open_model
from vivace.graph.build import build_graph
from vivace.schedule.config import SchedulerConfig
from vivace.speculate.measure_costs import START_ROWS, measure_step_costs
from vivace.text.build import build_template, build_tokenizer
from vivace.types.events import TokenEvent
from vivace.types.request import ChatMessage, GenerationRequest, SamplingParams, StopParams

MORE_ROWS = (17, 18, 20, 28, 40, 48, 64)
TRIES = 3
STREAMS = 16


def answers_of(
    executor: NativeExecutor, prompts: list[tuple[int, ...]], eos_ids: frozenset[int], max_tokens: int
) -> list[list[int]]:
    """Greedy answers, many at a time."""
    engine = Engine(executor, SchedulerConfig(max_sequences=STREAMS, eos_ids=eos_ids, prefix_cache=False))
    for index, prompt in enumerate(prompts):
        engine.add(GenerationRequest(str(index), prompt, SamplingParams(temperature=0), StopParams(max_tokens)))
    answers: list[list[int]] = [[] for _ in prompts]
    while engine.has_work:
        for event in engine.step():
            if isinstance(event, TokenEvent):
                answers[int(event.request_id)].append(event.token_id)
    return answers


def step_times(executor: NativeExecutor) -> dict[int, float]:
    """Milliseconds by rows."""
    rows = sorted({*START_ROWS, *MORE_ROWS})
    tries = [measure_step_costs(executor, rows) for _ in range(TRIES)]
    return {count: min(one[count] for one in tries) for count in rows}


def main() -> None:
    """Record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--workloads", nargs="+", choices=tuple(WORKLOADS), default=list(WORKLOADS))
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--max-tokens", type=int, default=96)
    options = parser.parse_args()
    loaded = open_model(resolve(options.model))
    assert loaded.vocabulary is not None
    tokenizer = build_tokenizer(loaded.vocabulary)
    template = build_template(loaded.vocabulary, tokenizer)
    executor = NativeExecutor(build_graph(loaded.spec), loaded.weights, num_blocks=1600, max_rows=512)
    with options.out.open("w", encoding="utf-8") as file:
        file.write(json.dumps({"model": options.model, "step_ms": step_times(executor)}) + "\n")
        for name in options.workloads:
            read, is_chat = WORKLOADS[name]
            texts = list(itertools.islice(read(options.data), options.prompts))
            prompts = [
                tuple(template.encode_chat([ChatMessage("user", text)]) if is_chat else tokenizer.encode(text))
                for text in texts
            ]
            answers = answers_of(executor, prompts, frozenset(tokenizer.eos_ids), options.max_tokens)
            for prompt, answer in zip(prompts, answers, strict=True):
                file.write(json.dumps({"workload": name, "prompt": prompt, "answer": answer}) + "\n")


if __name__ == "__main__":
    main()
