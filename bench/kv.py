"""What KV formats and policies cost and save: perplexity, needles found, memory, and the speed of decoding.

    python bench/kv.py --model M.gguf --text wiki.test.raw --formats f16,int8,int4 --size 512 --windows 30
    python bench/kv.py --model M.gguf --text wiki.test.raw --policies full,window:256:4 --size 2048 --windows 8
    python bench/kv.py --model M.gguf --text wiki.test.raw --formats f16,int8 --measure needle --size 1024
    python bench/kv.py --model M.gguf --text wiki.test.raw --formats f16,int8 --measure speed --size 2048

Every format is measured under every policy. `quality`: perplexity of the second half of each window. `needle`: a pass
key of five digits is put into the text at a depth of 10 to 90 % and asked for at the end; `found` counts keys whose
every digit is likeliest. `speed`: tokens a second of one sequence with `--size` tokens before it, in turns, the median.
Memory is of one sequence of `--size` tokens, in blocks as the engine holds them. `--json` prints one object a row.
"""

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from vivace.cache.block_table import BlockTable
from vivace.cache.policies import KvPolicy, WindowPolicy, num_blocks_held, parse_policy
from vivace.cache.retention import Retention
from vivace.engine.kv_memory import local_reach
from vivace.execute.native import NativeExecutor
from vivace.execute.score import Tokens, cut_windows, iterate_logits, score_windows
from vivace.files.open import open_model
from vivace.graph.build import build_graph
from vivace.text.build import build_tokenizer
from vivace.text.tokenizer import Tokenizer
from vivace.types.errors import ConfigError, VivaceError
from vivace.types.step import BLOCK_SIZE, ForwardBatch

DECODE_STEPS, ROUNDS = 32, 5
NEEDLES = 20


class PolicyExecutor:
    """An executor whose rows see what a policy lets them: one sequence at a time, as the engine would run it."""

    def __init__(self, inner: NativeExecutor, policy: KvPolicy) -> None:
        self.inner = inner
        self.policy = policy
        self.vocab_size, self.num_blocks, self.max_rows = inner.vocab_size, inner.num_blocks, inner.max_rows
        self._table, self._retention = BlockTable(), None

    def forward(self, batch: ForwardBatch) -> np.ndarray:
        """The inner executor's, under the policy; cut where blocks are taken out of the table."""
        start, end = int(batch.positions[0]), int(batch.positions[-1]) + 1
        if start == 0:
            self._table = BlockTable()
            self._table.extend(range(self.num_blocks))
            self._retention = None if self.policy.pruning is None else Retention(self.policy.pruning)
        logits = []
        while start < end:
            stop = end
            self._table.drop(self.policy.dead_blocks(max(0, start - 1)))
            if self._retention is not None:
                if start == self._retention.next_decision:
                    self._retention.decide(self._table)
                stop = min(end, self._retention.next_decision)
            logits.append(self._run(batch, start, stop).copy())
            start = stop
        return np.concatenate(logits)

    def _run(self, batch: ForwardBatch, start: int, stop: int) -> np.ndarray:
        """Rows of the positions [start, stop)."""
        first = int(batch.positions[0])
        positions = np.arange(start, stop, dtype=np.int32)
        wanted = batch.logit_rows[(batch.logit_rows >= start - first) & (batch.logit_rows < stop - first)]
        starts, sinks = self.policy.sight(positions) or (None, None)
        observed = () if self._retention is None else self._retention.observed(start, stop)
        logits = self.inner.forward(
            ForwardBatch(
                token_ids=np.ascontiguousarray(batch.token_ids[start - first : stop - first]),
                positions=positions,
                sequence_starts=np.array([0, stop - start], np.int32),
                block_tables=np.ascontiguousarray(self._table.entries[None]),
                logit_rows=(wanted - (start - first)).astype(np.int32),
                window_starts=starts,
                sink_ends=sinks,
                slots=positions - np.int32(self._table.num_removed * BLOCK_SIZE),
                local_tables=np.arange(self.num_blocks, dtype=np.int32)[None],
                observe_rows=np.array([position - start for position in observed], np.int32) if observed else None,
            )
        )
        for position, masses in zip(observed, self.inner.observed() if observed else (), strict=True):
            self._retention.note(position, masses)
        return logits

    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        """The inner executor's."""
        self.inner.copy_blocks(pairs)

    def close(self) -> None:
        """The inner executor's."""
        self.inner.close()


def read_tokens(options: argparse.Namespace) -> tuple[Tokenizer, list[int]]:
    """The model's tokenizer and the text's tokens."""
    model = open_model(options.model)
    if model.vocabulary is None:
        raise ConfigError(f"{options.model} has no vocabulary.", "Use a whole model file.")
    tokenizer = build_tokenizer(model.vocabulary)
    model.close()
    return tokenizer, tokenizer.encode(options.text.read_text(encoding="utf-8"))


def make_executor(options: argparse.Namespace, kv_format: str) -> NativeExecutor:
    """An executor with room for one window and what is decoded after it."""
    model = open_model(options.model)
    num_blocks = -(-(options.size + DECODE_STEPS * ROUNDS) // BLOCK_SIZE)
    return NativeExecutor(
        build_graph(model.spec),
        model.weights,
        num_blocks=num_blocks,
        num_local_blocks=num_blocks,
        num_threads=options.threads,
        kv_format=kv_format,
    )


def num_local_blocks(options: argparse.Namespace, kv_format: str) -> int:
    """Blocks that a sequence holds for layers with a window and for float16 copies."""
    model = open_model(options.model)
    window, first = local_reach(model.spec, kv_format)
    model.close()
    return num_blocks_held(WindowPolicy(window, sinks=first), options.size) if window else 0


def measure_quality(options: argparse.Namespace, executor: PolicyExecutor) -> dict[str, float]:
    """Perplexity over windows of the text."""
    tokenizer, ids = read_tokens(options)
    bos_id = tokenizer.bos_id if tokenizer.adds_bos else None
    score = score_windows(executor, cut_windows(ids, options.size, options.windows, bos_id))
    return {"perplexity": score.perplexity, "perplexity_error": score.perplexity_error}


def needle_prompts(options: argparse.Namespace) -> Iterator[tuple[Tokens, list[int]]]:
    """Texts with a pass key in them and the question at the end; and the tokens of the key."""
    tokenizer, ids = read_tokens(options)
    random = np.random.default_rng(7)
    for number in range(NEEDLES):
        key = str(random.integers(10_000, 99_999))
        needle = tokenizer.encode(f"\nThe pass key is {key}. Remember it. {key} is the pass key.\n")
        question = tokenizer.encode("\nWhat is the pass key? The pass key is")
        answer = tokenizer.encode(f" {key}")
        if tokenizer.adds_bos:
            needle, question, answer = needle[1:], question[1:], answer[1:]
        length = options.size - len(needle) - len(question) - len(answer)
        hay = ids[number * length : (number + 1) * length]
        depth = int(length * (0.1 + 0.8 * number / (NEEDLES - 1)))
        prompt = [*hay[:depth], *needle, *hay[depth:], *question, *answer]
        yield np.array(prompt, np.int32), answer


def measure_needle(options: argparse.Namespace, executor: PolicyExecutor) -> dict[str, float]:
    """How many pass keys are found, and how probable their tokens are."""
    found, log_probabilities = 0, []
    for prompt, answer in needle_prompts(options):
        first = len(prompt) - len(answer) - 1
        ((_, logits),) = iterate_logits(executor, prompt[:-1], first)
        shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
        picked = shifted[np.arange(len(answer)), answer] - np.log(np.exp(shifted).sum(axis=1))
        log_probabilities.append(picked.mean())
        found += int((logits.argmax(axis=1) == answer).all())
    return {"found": found, "of": NEEDLES, "key_nll": -float(np.mean(log_probabilities))}


def decode_speed(executor: PolicyExecutor, start: int) -> float:
    """Tokens a second of one sequence from position `start` on."""
    table = np.arange(executor.num_blocks, dtype=np.int32)[None]
    ends, last = np.array([0, 1], np.int32), np.array([0], np.int32)
    began = time.perf_counter()
    for position in range(start, start + DECODE_STEPS):
        executor.forward(ForwardBatch(np.array([7], np.int32), np.array([position], np.int32), ends, table, last))
    return DECODE_STEPS / (time.perf_counter() - began)


def fill(executor: PolicyExecutor, tokens: Tokens) -> float:
    """Read a prompt; returns tokens a second."""
    began = time.perf_counter()
    for _ in iterate_logits(executor, tokens, len(tokens) - 1):
        pass
    return len(tokens) / (time.perf_counter() - began)


Row = tuple[str, str, PolicyExecutor]


def measure_speeds(options: argparse.Namespace, rows: Sequence[Row]) -> list[dict[str, float]]:
    """All rows in turns, so that a busy machine is busy for all of them."""
    tokens = np.array(read_tokens(options)[1][: options.size], np.int32)
    prompts: list[list[float]] = [[] for _ in rows]
    decodes: list[list[float]] = [[] for _ in rows]
    for round_number in range(ROUNDS):
        for index, (_, _, executor) in enumerate(rows):
            if round_number < 2:
                prompts[index].append(fill(executor, tokens))
            decodes[index].append(decode_speed(executor, options.size + round_number * DECODE_STEPS))
    return [
        {"prompt_tokens_per_s": max(prompt), "decode_tokens_per_s": statistics.median(decode)}
        for prompt, decode in zip(prompts, decodes, strict=True)
    ]


MEASURES: dict[str, Callable[[argparse.Namespace, PolicyExecutor], dict[str, float]]] = {
    "quality": measure_quality,
    "needle": measure_needle,
}


def measure(options: argparse.Namespace) -> Iterator[dict[str, object]]:
    """One row of figures for each format under each policy."""
    executors = {name: make_executor(options, name) for name in options.formats.split(",")}
    rows = [
        (name, policy, PolicyExecutor(executor, parse_policy(policy)))
        for (name, executor), policy in itertools.product(executors.items(), options.policies.split(","))
    ]
    speeds = measure_speeds(options, rows) if options.measure == "speed" else None
    plain, num_blocks = make_executor(options, "bf16"), -(-options.size // BLOCK_SIZE)
    full_bytes = (plain.bytes_per_block + plain.bytes_per_local_block) * num_blocks
    for index, (name, policy, executor) in enumerate(rows):
        figures = speeds[index] if speeds else MEASURES[options.measure](options, executor)
        held = num_blocks_held(executor.policy, options.size) * executor.inner.bytes_per_block
        held += num_local_blocks(options, name) * executor.inner.bytes_per_local_block
        yield {"format": name, "policy": policy, "kv_bytes": held, "of_bf16": held / full_bytes, **figures}


def parse(arguments: list[str]) -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description="Cost and gain of KV formats and policies.")
    parser.add_argument("--model", type=Path, required=True, help="a .gguf file or a Hugging Face folder")
    parser.add_argument("--text", type=Path, required=True, help="a UTF-8 text, such as wiki.test.raw")
    parser.add_argument("--measure", choices=[*MEASURES, "speed"], default="quality")
    parser.add_argument("--formats", default="f16", help="names with commas between them")
    parser.add_argument("--policies", default="full", help="as in full,window:256:4,adaptive")
    parser.add_argument("--size", type=int, default=512, help="tokens in a window")
    parser.add_argument("--windows", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Print the rows, as a table or as JSON."""
    options = parse(arguments)
    try:
        for number, row in enumerate(measure(options)):
            if options.json:
                print(json.dumps(row), flush=True)
                continue
            if number == 0:
                print("| " + " | ".join(row) + " |\n|" + "---|" * len(row))
            cells = (f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values())
            print("| " + " | ".join(cells) + " |", flush=True)
    except (VivaceError, OSError, UnicodeDecodeError) as error:
        print(f"kv: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
