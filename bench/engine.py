"""What the engine makes of memory, batches, chats, long queues and overload.

    python bench/engine.py [--model M] [--only utilisation chat scheduler overload memory restart int8] [--json]

* utilisation: KV tokens held over tokens reserved, paged, against static batches padded to the longest of the batch;
  and simulated tokens per second of continuous batching against static batches, on the same mixed lengths.
* chat: time to the first token of turns 1 to 8 of a chat on the real model, with and without the prefix cache.
* restart: time to the first token of a conversation of 600 tokens after a restart, read again or from a saved session.
* scheduler: milliseconds that Python spends on a decode step at 16, 256 and 1,000 sequences (bench/scheduler.py).
* overload: time to the first token, quality of experience and stalls of each order on one trace (bench/overload.py).
* memory: resident memory after 2,000 and after 20,000 requests through one engine.
* int8: memory and perplexity of int8 keys and values against bf16 (bench/kv.py; needs --text).

utilisation and overload run on a simulated clock (MACHINE of bench/overload.py); the others on this machine.
"""

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from overload import MACHINE, Arrival, Clock, overload_trace, play
from scheduler import measure as measure_steps
from vivace.cache.block_pool import BlockPool
from vivace.cache.tiers import BlockTiers
from vivace.engine.build import EngineConfig, build_service
from vivace.engine.core import Engine
from vivace.engine.service import ModelService
from vivace.engine.tiering import TierConfig
from vivace.files.catalogue import resolve
from vivace.files.catalogue_rows import DEFAULT_MODEL
from vivace.schedule.config import SchedulerConfig
from vivace.schedule.orders.config import ORDER_NAMES
from vivace.schedule.scheduler import Scheduler
from vivace.schedule.step_cost import num_pairs
from vivace.types.request import ChatMessage, GenerationRequest, SamplingParams, ServiceLevel, StopParams
from vivace.types.step import BlockContent, Draw, ForwardBatch, StepResult

BATCH = 32
HISTORY_TOKENS = 600
MEMORY = (("ample", 1200), ("scarce", 220))
"""Blocks of the overload trace."""
QUESTION = "Please tell me one more thing about the sea, and about the people who live beside it and work there."


def continuous(trace: list[Arrival]) -> tuple[float, float]:
    """Mean share of reserved slots in use, and tokens per second, of a full engine."""
    config = SchedulerConfig(max_batch_tokens=512, max_sequences=BATCH)
    clock = Clock()
    scheduler = Scheduler(config, BlockPool(4000), clock)
    for arrival in trace:
        scheduler.add(arrival.request, seed=0)
    held = reserved = num_tokens = 0
    while scheduler.has_work:
        plan = scheduler.schedule()
        elapsed_ms = MACHINE.step_ms(plan.num_tokens, num_pairs(plan.shares))
        clock.now_ns += round(elapsed_ms * 1e6)
        scheduler.note_step(plan, elapsed_ms)
        now_held, now_reserved = scheduler.kv_tokens()
        held, reserved = held + now_held, reserved + now_reserved
        draws = tuple(Draw(9) for share in plan.shares if share.wants_logits)
        num_tokens += len(draws)
        scheduler.commit(plan, StepResult(draws))
    return held / reserved, num_tokens / (clock.now_ns / 1e9)


def static(trace: list[Arrival]) -> tuple[float, float]:
    """The same for batches that are padded to their longest prompt and answer, and end together."""
    held = reserved = elapsed_ms = 0.0
    num_tokens = 0
    for start in range(0, len(trace), BATCH):
        sizes = [
            (len(arrival.request.prompt_ids), arrival.request.stopping.max_tokens or 0)
            for arrival in trace[start : start + BATCH]
        ]
        prompt, answer = max(size[0] for size in sizes), max(size[1] for size in sizes)
        elapsed_ms += MACHINE.step_ms(len(sizes) * prompt, len(sizes) * prompt * prompt / 2)
        for step in range(1, answer):
            elapsed_ms += MACHINE.step_ms(len(sizes), len(sizes) * (prompt + step))
            held += sum(own_prompt + step for own_prompt, own_answer in sizes if step < own_answer)
            reserved += len(sizes) * (prompt + answer)
        num_tokens += sum(size[1] for size in sizes)
    return held / reserved, num_tokens / (elapsed_ms / 1e3)


@dataclass(frozen=True, slots=True)
class Turn:
    """First token of one turn: prompt tokens, those found computed, seconds."""

    num_prompt: int
    num_cached: int
    first_token_s: float


def first_token(service: ModelService, messages: list[ChatMessage], max_tokens: int) -> tuple[Turn, str]:
    """Ask for the next turn; returns what its first token took, and all that was said."""
    start = time.perf_counter()
    request = service.admit_chat(messages, {"temperature": 0, "max_tokens": max_tokens})
    chunks = service.iterate(request)
    said = next(chunks).text
    elapsed_s = time.perf_counter() - start
    rest = list(chunks)
    usage = rest[-1].usage
    assert usage is not None
    turn = Turn(len(request.prompt_ids), usage.cached_tokens, elapsed_s)
    return turn, said + "".join(chunk.text for chunk in rest)


def chat_turns(model: str | None, *, prefix_cache: bool) -> list[Turn]:
    """Each turn of one chat."""
    service = build_service(model, EngineConfig(prefix_cache=prefix_cache, context_length=2048))
    messages: list[ChatMessage] = []
    turns = []
    try:
        service.complete(service.admit(service.encode("warm up"), {"max_tokens": 4}))
        for _ in range(8):
            messages.append(ChatMessage("user", QUESTION))
            turn, said = first_token(service, messages, max_tokens=80)
            turns.append(turn)
            messages.append(ChatMessage("assistant", said))
    finally:
        service.close()
    return turns


def measure_utilisation(options: argparse.Namespace) -> tuple[object, list[str]]:
    """Memory in use and throughput, continuous and static."""
    used, speed = continuous(overload_trace())
    padded_used, padded_speed = static(overload_trace())
    figures = {"paged": used, "padded": padded_used, "continuous_per_s": speed, "static_per_s": padded_speed}
    return figures, [
        f"KV utilisation: paged {used:.1%}, padded static {padded_used:.1%}",
        f"tokens/s (simulated): continuous {speed:.0f}, static {padded_speed:.0f}, {speed / padded_speed:.2f} x",
    ]


def measure_chat(options: argparse.Namespace) -> tuple[object, list[str]]:
    """First tokens of a chat's turns."""
    cached = chat_turns(options.model, prefix_cache=True)
    plain = chat_turns(options.model, prefix_cache=False)
    lines = [f"{'turn':>4}  {'prompt':>6}  {'cached':>6}  {'first token':>11}  {'without prefix cache':>20}"]
    for number, (row, other) in enumerate(zip(cached, plain, strict=True), 1):
        lines.append(
            f"{number:4d}  {row.num_prompt:6d}  {row.num_cached:6d}  {row.first_token_s * 1e3:8.1f} ms  "
            f"{other.first_token_s * 1e3:17.1f} ms"
        )
    return {"with_cache": [asdict(row) for row in cached], "without": [asdict(row) for row in plain]}, lines


def measure_restart(options: argparse.Namespace) -> tuple[object, list[str]]:
    """A saved conversation after a restart, with and without its session."""
    messages = [ChatMessage("user", QUESTION)]
    turns = {}
    with tempfile.TemporaryDirectory() as folder:
        config = EngineConfig(context_length=2048, tiers=TierConfig(folder=Path(folder)))
        service = build_service(options.model, config)
        while len(service.encode_chat(messages)) < HISTORY_TOKENS:
            said = first_token(service, messages, max_tokens=80)[1]
            messages += [ChatMessage("assistant", said), ChatMessage("user", QUESTION)]
        saved = service.conversations.save("", messages[:-1])
        service.close()
        for kind in ("read again", "restored"):
            service = build_service(options.model, config)
            service.complete(service.admit(service.encode("warm up"), {"max_tokens": 4}))
            start = time.perf_counter()
            if kind == "restored":
                service.conversations.restore("", saved.session_id)
            restore_s = time.perf_counter() - start
            prompt = messages if kind == "restored" else [ChatMessage("system", "Be brief."), *messages]
            turns[kind] = {**asdict(first_token(service, prompt, max_tokens=4)[0]), "restore_s": restore_s}
            service.close()
    return turns, [
        f"after a restart, {kind}: {row['num_prompt']} tokens, {row['num_cached']} cached, restore "
        f"{row['restore_s'] * 1e3:.1f} ms, first token {row['first_token_s'] * 1e3:.1f} ms"
        for kind, row in turns.items()
    ]


def measure_scheduler(options: argparse.Namespace) -> tuple[object, list[str]]:
    """Python's part of a decode step."""
    gc.freeze()
    rows = {count: measure_steps(count, 150) for count in (16, 256, 1000)}
    gc.unfreeze()  # or all that lives now is never freed
    return rows, [
        f"scheduler at {count:4d} sequences: schedule + commit {row['schedule'] + row['commit']:.3f} ms, with the "
        f"step's arrays {row['median_ms']:.3f} ms"
        for count, row in rows.items()
    ]


def measure_overload(options: argparse.Namespace) -> tuple[object, list[str]]:
    """Every order on one trace, with memory for all that may run and with memory for a few."""
    outcomes = {
        name: [play(kind, overload_trace(), num_blocks=count) for kind in ORDER_NAMES] for name, count in MEMORY
    }
    lines = []
    for name, rows in outcomes.items():
        lines.append(
            f"{name:>8}  {'TTFT p50':>8}  {'p95':>7}  {'QoE':>5}  {'happy':>6}  {'stalled':>7}  {'tokens/s':>8}  "
            "preempted"
        )
        lines += [
            f"{row.order:>8}  {row.ttft_p50_s:6.2f} s  {row.ttft_p95_s:5.2f} s  {row.mean_qoe:5.3f}  "
            f"{row.happy_share:6.1%}  {row.stalled_share:7.1%}  {row.tokens_per_s:8.0f}  {row.num_preemptions:9d}"
            for row in rows
        ]
    return {name: [asdict(row) for row in rows] for name, rows in outcomes.items()}, lines


class Nothing:
    """An executor that computes nothing, so that only the engine's own memory can grow."""

    vocab_size, num_blocks, max_rows, bytes_per_block = 64, 400, 512, 64

    def __init__(self) -> None:
        self._logits = np.random.default_rng(0).normal(size=(self.max_rows, self.vocab_size)).astype(np.float32)

    def forward(self, batch: ForwardBatch) -> NDArray[np.float32]:
        """The same logits for everybody."""
        return self._logits[: len(batch.logit_rows)]

    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Nothing is there to copy."""

    def read_block(self, block: int) -> BlockContent:
        """Zeros."""
        return np.zeros(self.bytes_per_block, np.uint8)

    def write_block(self, block: int, content: BlockContent) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        """Nothing is held."""


def measure_memory(options: argparse.Namespace) -> tuple[object, list[str]]:
    """Resident memory while requests pass through one engine."""
    executor = Nothing()
    config = SchedulerConfig(max_batch_tokens=256, max_sequences=64, context_length=512)
    engine = Engine(executor, config, tiers=BlockTiers(executor, 1000 * executor.bytes_per_block))
    random = np.random.default_rng(1)
    marks = {}
    for number in range(1, 20_001):
        prompt = tuple(random.integers(0, 64, random.integers(1, 60)).tolist())
        level = ServiceLevel(tenant=str(number % 997), kind=str(number % 991))
        stopping = StopParams(int(random.integers(1, 12)))
        engine.add(GenerationRequest(str(number), prompt, SamplingParams(), stopping, service_level=level))
        while len(engine.scheduler.running) + engine.scheduler.num_waiting > 60:
            engine.step()
        if number in (2000, 20_000):
            while engine.has_work:
                engine.step()
            engine.scheduler.check()
            gc.collect()
            marks[number] = int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) / 1024
    engine.close()
    return marks, [
        "resident memory: " + ", ".join(f"{mib:.1f} MiB after {count} requests" for count, mib in marks.items())
    ]


def measure_int8(options: argparse.Namespace) -> tuple[object, list[str]]:
    """Rows of bench/kv.py."""
    if options.text is None:
        return None, ["int8: give --text FILE (such as wiki.test.raw) to measure it"]
    model = resolve(options.model or DEFAULT_MODEL)
    command = [sys.executable, str(Path(__file__).with_name("kv.py")), "--model", str(model), "--text", options.text]
    command += ["--formats", "bf16,f16,int8", "--size", "512", "--windows", "6", "--json"]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    rows = [json.loads(line) for line in told.splitlines()]
    full = rows[0]["perplexity"]
    return rows, [
        f"{row['format']:>5}: memory {row['of_bf16']:.3f} of bf16, perplexity {row['perplexity']:.3f} "
        f"({row['perplexity'] / full - 1:+.2%})"
        for row in rows
    ]


PARTS: dict[str, Callable[[argparse.Namespace], tuple[object, list[str]]]] = {
    "utilisation": measure_utilisation,
    "chat": measure_chat,
    "restart": measure_restart,
    "scheduler": measure_scheduler,
    "overload": measure_overload,
    "memory": measure_memory,
    "int8": measure_int8,
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--text", help="for int8")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=tuple(PARTS))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results = {}
    for name in options.only:
        results[name], lines = PARTS[name](options)
        if not options.json:
            print("\n".join(lines), flush=True)
    if options.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
