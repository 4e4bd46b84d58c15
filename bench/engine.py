"""What the engine makes of memory, batches, chats and overload.

    python bench/engine.py [--model M] [--only utilisation batching chat overload] [--json]

* utilisation: KV tokens held over tokens reserved, paged, against static batches padded to the longest of the batch.
* batching: simulated tokens per second of continuous batching against static batches, on the same mixed lengths.
* chat: time to the first token of turns 1 to 8 of a chat on the real model, with and without the prefix cache.
* overload: time to the first token, quality of experience and stalls of each order on one trace (bench/overload.py).

utilisation, batching and overload run on a simulated clock (MACHINE of bench/overload.py); chat on this machine.
"""

import argparse
import json
import time
from dataclasses import asdict

from overload import MACHINE, Arrival, Clock, overload_trace, play
from vivace.cache.block_pool import BlockPool
from vivace.engine.build import EngineConfig, build_service
from vivace.schedule.config import SchedulerConfig
from vivace.schedule.orders.config import ORDER_NAMES
from vivace.schedule.scheduler import Scheduler
from vivace.schedule.step_cost import num_pairs
from vivace.types.request import ChatMessage
from vivace.types.step import Draw, StepResult

BATCH = 32
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


def chat_turns(model: str | None, *, prefix_cache: bool) -> list[tuple[int, float]]:
    """Prompt tokens and seconds to the first token of each turn of one chat."""
    service = build_service(model, EngineConfig(prefix_cache=prefix_cache, context_length=2048))
    messages: list[ChatMessage] = []
    turns = []
    try:
        service.complete(service.admit(service.encode("warm up"), {"max_tokens": 4}))
        for _ in range(8):
            messages.append(ChatMessage("user", QUESTION))
            start = time.perf_counter()
            request = service.admit_chat(messages, {"temperature": 0, "max_tokens": 80, "ignore_eos": True})
            chunks = service.iterate(request)
            said = next(chunks).text
            turns.append((len(request.prompt_ids), time.perf_counter() - start))
            said += "".join(chunk.text for chunk in chunks)
            messages.append(ChatMessage("assistant", said))
    finally:
        service.close()
    return turns


def batch_figures(trace: list[Arrival]) -> dict[str, float]:
    """Utilisation and throughput of both ways."""
    used, speed = continuous(trace)
    padded_used, padded_speed = static(trace)
    return {"paged": used, "padded": padded_used, "continuous_tokens_per_s": speed, "static_tokens_per_s": padded_speed}


def report(options: argparse.Namespace) -> dict[str, object]:
    """Run what was asked for, printing as it goes unless JSON is wanted."""
    trace = overload_trace()
    results: dict[str, object] = {}
    say = (lambda line: None) if options.json else print
    if {"utilisation", "batching"} & set(options.only):
        figures = batch_figures(trace)
        results["batches"] = figures
        say(f"KV utilisation: paged {figures['paged']:.1%}, padded static {figures['padded']:.1%}")
        ratio = figures["continuous_tokens_per_s"] / figures["static_tokens_per_s"]
        say(
            f"tokens/s (simulated): continuous {figures['continuous_tokens_per_s']:.0f}, "
            f"static {figures['static_tokens_per_s']:.0f}, {ratio:.2f} x"
        )
    if "chat" in options.only:
        with_cache = chat_turns(options.model, prefix_cache=True)
        without = chat_turns(options.model, prefix_cache=False)
        results["chat"] = {"with_cache": with_cache, "without": without}
        say(f"{'turn':>4}  {'prompt':>6}  {'first token':>11}  {'without prefix cache':>20}")
        for number, ((tokens, seconds), (_, plain)) in enumerate(zip(with_cache, without, strict=True), 1):
            say(f"{number:4d}  {tokens:6d}  {seconds * 1e3:8.1f} ms  {plain * 1e3:17.1f} ms")
    if "overload" in options.only:
        outcomes = [play(kind, trace) for kind in ORDER_NAMES]
        results["overload"] = [asdict(outcome) for outcome in outcomes]
        say(f"{'order':>8}  {'TTFT p50':>8}  {'p95':>6}  {'QoE':>5}  {'happy':>6}  {'stalled':>7}  {'tokens/s':>8}")
        for row in outcomes:
            say(
                f"{row.order:>8}  {row.ttft_p50_s:6.2f} s  {row.ttft_p95_s:4.2f} s  {row.mean_qoe:5.3f}  "
                f"{row.happy_share:6.1%}  {row.stalled_share:7.1%}  {row.tokens_per_s:8.0f}"
            )
    return results


def main() -> None:
    """Measure and print."""
    kinds = ("utilisation", "batching", "chat", "overload")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--only", nargs="+", choices=kinds, default=kinds)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results = report(options)
    if options.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
