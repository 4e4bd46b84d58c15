"""Readers that come and go at random, for minutes, against a real server: what must not be left behind afterwards.

    python bench/soak.py [--seconds 600] [--clients 12] [--model M] [--seed 0] [--json]

Every client does one of ACTIONS again and again: whole answers, streams that are left in the middle, requests that are
dropped before they are answered, streams that are cancelled, resumed or kept, conversations that are saved, restored
and deleted, hints, and nonsense. The KV memory holds a few of their conversations only, so that running answers are
pre-empted, and blocks spill to memory and to disk and come back. At the end, when the engine has nothing to do, these
must be as they were before: held KV blocks, running and waiting sequences, unfinished tasks, open descriptors, threads
and saved conversations. Resident memory is printed beside them. Exits with 1 if anything is left, or if one of
HAPPENINGS has not happened.
"""

import argparse
import asyncio
import contextlib
import gc
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx

from vivace.engine.build import EngineConfig, build_service
from vivace.engine.stats import EngineStats
from vivace.engine.tiering import MEBIBYTE, TierConfig
from vivace.server.config import ServerConfig
from vivace.server.loading import LoadingModel
from vivace.server.run import SignalledServer, bind, page_url
from vivace.stream.shared_store import StoreConfig

CHAT = "/v1/chat/completions"
TOPICS = ("the sea", "bread", "a walk in the hills", "old maps", "how bees live", "rain", "trains", "the moon")
SETTLE_S = 60.0
PATIENCE_S = 900.0  # others may hold up the machine
NUM_BLOCKS = 40
HAPPENINGS = ("num_preemptions", "num_spilled", "num_from_host", "num_from_disk", "num_preloaded", "num_preload_hits")

Client = httpx.AsyncClient
Action = Callable[[Client, random.Random], Awaitable[None]]


def conversation(chance: random.Random, num_turns: int | None = None) -> list[dict[str, str]]:
    """A few turns; many share their beginning."""
    topic = chance.choice(TOPICS)
    messages = [{"role": "system", "content": "You are a patient teacher who explains one thing at a time."}]
    for number in range(num_turns or chance.randint(1, 4)):
        messages.append({"role": "user", "content": f"Tell me thing number {number + 1} about {topic}."})
        messages.append({"role": "assistant", "content": f"Thing number {number + 1} about {topic} is a long story."})
    return messages[:-1]


def request(chance: random.Random, **more: object) -> dict[str, object]:
    """A chat request of mixed lengths."""
    options = {"max_tokens": chance.choice((1, 8, 60, 200)), "temperature": chance.choice((0, 0.8))}
    tenant = {"tenant": chance.choice(("", "a", "b"))}
    return {"messages": conversation(chance), "n": chance.choice((1, 1, 1, 2)), "vivace": tenant, **options, **more}


async def whole(client: Client, chance: random.Random) -> None:
    """An answer that is waited for."""
    (await client.post(CHAT, json=request(chance))).read()


async def dropped(client: Client, chance: random.Random) -> None:
    """An answer that is not waited for."""
    with contextlib.suppress(httpx.TimeoutException):
        await client.post(CHAT, json=request(chance, max_tokens=200), timeout=chance.uniform(0.01, 0.8))


async def read(client: Client, chance: random.Random, most: int, **options: object) -> str:
    """A stream up to a number of lines; returns its id."""
    body = request(chance, stream=True, stream_options=options or None)
    async with client.stream("POST", CHAT, json=body) as answer:
        number = 0
        async for _ in answer.aiter_lines():
            number += 1
            if number >= most:
                break
        return answer.headers.get("x-stream-id", "none")


async def streamed(client: Client, chance: random.Random) -> None:
    """A stream that is read to its end."""
    await read(client, chance, most=10_000)


async def left(client: Client, chance: random.Random) -> None:
    """A stream whose reader goes away."""
    await read(client, chance, most=chance.randint(1, 30))


async def resumed(client: Client, chance: random.Random) -> None:
    """A stream that is kept, left, and read again from some place, or cancelled."""
    name = await read(client, chance, chance.randint(1, 20), on_disconnect="keep")
    if chance.random() < 0.5:
        await client.delete(f"/v1/streams/{name}")
        return
    async with client.stream("GET", f"/v1/streams/{name}?starting_after={chance.randint(0, 2)}") as answer:
        async for _ in answer.aiter_lines():
            if chance.random() < 0.02:
                break


async def session(client: Client, chance: random.Random) -> None:
    """A conversation that is saved, gone on with, and deleted."""
    body = {"messages": conversation(chance)}
    saved = (await client.post("/v1/sessions", json=body)).json()
    path = f"/v1/sessions/{saved['id']}"
    await client.post(f"{path}/hint")
    await client.get(path)
    if chance.random() < 0.5:
        await client.put(path, json={"messages": conversation(chance)})
    await client.delete(path)


async def hinted(client: Client, chance: random.Random) -> None:
    """Somebody types, and may or may not send it."""
    messages = conversation(chance)
    await client.post("/v1/hints", json={"messages": messages})
    if chance.random() < 0.5:
        await client.post(CHAT, json={"messages": messages, "max_tokens": 4})


async def nonsense(client: Client, chance: random.Random) -> None:
    """What is refused."""
    bodies = (b"", b"{", b'{"messages": []}', b'{"messages": [{"role": "user", "content": "x"}], "max_tokens": 999999}')
    await client.post(CHAT, content=chance.choice(bodies))
    await client.get("/v1/streams/unknown")


ACTIONS: dict[str, tuple[Action, int]] = {
    "whole": (whole, 2),
    "dropped": (dropped, 4),
    "streamed": (streamed, 2),
    "left": (left, 5),
    "resumed": (resumed, 3),
    "session": (session, 2),
    "hinted": (hinted, 1),
    "nonsense": (nonsense, 1),
}


async def one_client(url: str, seed: int, until_s: float, done: Counter[str]) -> None:
    """Act at random, sometimes over a new connection."""
    chance = random.Random(seed)
    names = list(ACTIONS)
    weights = [ACTIONS[name][1] for name in names]
    while time.monotonic() < until_s:
        async with Client(base_url=url, timeout=PATIENCE_S, trust_env=False) as client:
            for _ in range(chance.randint(1, 6)):
                name = chance.choices(names, weights)[0]
                try:
                    await ACTIONS[name][0](client, chance)
                    done[name] += 1
                except httpx.TransportError:  # a connection that rested went away just as it was used again
                    done["broken connections"] += 1
                    break
                if time.monotonic() >= until_s:
                    break


async def all_clients(url: str, options: argparse.Namespace, seconds: float) -> Counter[str]:
    """Every client at once; returns how often each action was done."""
    done: Counter[str] = Counter()
    until_s = time.monotonic() + seconds
    await asyncio.gather(*(one_client(url, options.seed + index, until_s, done) for index in range(options.clients)))
    return done


def look(model: LoadingModel, folder: Path) -> dict[str, int]:
    """What must not grow."""
    gc.collect()
    stats = model.service().stats()
    tasks = [each for each in gc.get_objects() if isinstance(each, asyncio.Task) and not each.done()]
    return {
        "held_blocks": stats.held_blocks,
        "held_local_blocks": stats.held_local_blocks,
        "running": stats.running_sequences,
        "waiting": stats.waiting_sequences,
        "lost_blocks": stats.total_blocks - stats.free_blocks - stats.held_blocks - stats.cached_blocks,
        "tasks": len(tasks),
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "threads": threading.active_count(),
        "sessions": len(list(folder.rglob("*.json"))),
    }


def settled(model: LoadingModel, folder: Path, before: dict[str, int] | None = None) -> dict[str, int]:
    """What is there once it does not change any more, or after SETTLE_S."""
    deadline_s = time.monotonic() + SETTLE_S
    now = look(model, folder)
    while time.monotonic() < deadline_s:
        if not now["running"] and not now["waiting"] and (before is None or not grown(before, now)):
            break
        time.sleep(0.5)
        now = look(model, folder)
    return now


def grown(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    """What there is more of. Threads of the pool that file work runs in are kept for later, up to their limit."""
    more = {name: after[name] - count for name, count in before.items() if after[name] > count}
    if more.get("threads", 0) <= 40:
        more.pop("threads", None)
    return more


def resident_mib() -> float:
    """Memory of this process."""
    text = Path("/proc/self/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0]) / 1024


def soak(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Serve, disturb, look."""
    tiers = TierConfig(16 * MEBIBYTE, folder / "kv", 256 * MEBIBYTE)
    config = EngineConfig(context_length=512, num_blocks=NUM_BLOCKS, max_sequences=16, order="reader", tiers=tiers)
    settled_event = threading.Event()
    model = LoadingModel(lambda: build_service(options.model, config), lambda _: settled_event.set())
    listener = bind("127.0.0.1", 0)
    server = SignalledServer(ServerConfig(port=0, drain_s=1, store=StoreConfig(folder / "streams")), model)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    model.start()
    settled_event.wait()
    try:
        url = page_url(listener)
        asyncio.run(all_clients(url, options, min(10.0, options.seconds / 6)))
        before, memory = settled(model, folder), resident_mib()
        done = asyncio.run(all_clients(url, options, options.seconds))
        after = settled(model, folder, before)
        stats = model.service().stats()
    finally:
        server.stop()
        thread.join()
        listener.close()
        model.close()
    return {
        "seconds": options.seconds,
        "actions": dict(done),
        "requests": stats.num_requests,
        "happened": happened(stats),
        "qoe": {"mean": stats.mean_qoe, "answers": stats.num_judged, "happy": stats.num_happy},
        "before": before,
        "after": after,
        "left_behind": grown(before, after),
        "resident_mib": [round(memory), round(resident_mib())],
    }


def happened(stats: EngineStats) -> dict[str, int]:
    """How often each of HAPPENINGS has."""
    numbers = asdict(stats) | (asdict(stats.tiers) if stats.tiers is not None else {})
    return {name: numbers[name] for name in HAPPENINGS}


def main() -> int:
    """Soak and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = soak(options, Path(folder))
    if options.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name}: {value}")
    return 1 if result["left_behind"] or not all(result["happened"].values()) else 0


if __name__ == "__main__":
    sys.exit(main())
