"""The same text, always, on real executors: alone = in a batch of 8 = in chunks of any size = forked = pre-empted."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.harness import run_to_end, tokens_of
from factories.tiny_models import ARCHITECTURES, random_weights, tiny_spec
from vivace.cache.disk_tier import DiskTier
from vivace.cache.tiers import BlockTiers, LocalMemory
from vivace.engine.build import EngineConfig, build_service
from vivace.engine.core import Engine
from vivace.execute.native import NativeExecutor
from vivace.execute.reference import ReferenceExecutor
from vivace.graph.build import build_graph
from vivace.schedule.config import SchedulerConfig
from vivace.speculate.policy import POLICIES, FixedPolicy
from vivace.types.request import GenerationRequest, SamplingParams, StopParams
from vivace.types.step import Executor, LocalLayers

KINDS = (
    SamplingParams(temperature=0),
    SamplingParams(seed=3, temperature=0.8),
    SamplingParams(seed=4, top_k=20, top_p=0.9, repetition_penalty=1.1),
)
Tokens = dict[int, list[int]]


def native(architecture: str) -> Executor:
    spec = tiny_spec(architecture)
    return NativeExecutor(build_graph(spec), random_weights(spec), num_blocks=120, max_rows=520, num_threads=2)


def native_with_local_blocks(architecture: str) -> Executor:
    spec = tiny_spec(architecture)
    graph = build_graph(spec)
    return NativeExecutor(graph, random_weights(spec), num_blocks=120, num_local_blocks=60, max_rows=520, num_threads=2)


def reference(architecture: str) -> Executor:
    spec = tiny_spec(architecture)
    return ReferenceExecutor(build_graph(spec), random_weights(spec), num_blocks=120, max_rows=520)


MAKERS: dict[str, Callable[[str], Executor]] = {"native": native, "reference": reference}


LAYERS_OF_ONE_KIND = ("native", "llama")
LAYERS_OF_TWO_KINDS = ("local", "gemma3")


@lru_cache
def executor_of(kind: str, architecture: str) -> Executor:
    """One for all tests: stale pages of earlier tests must not matter."""
    return native_with_local_blocks(architecture) if kind == "local" else MAKERS[kind](architecture)


def requests_of(vocab_size: int, max_tokens: int = 12) -> list[GenerationRequest]:
    generator = np.random.default_rng(0)
    lengths = (1, 3, 17, 64, 65, 100, 130, 31)
    prompts = [tuple(generator.integers(0, vocab_size, length).tolist()) for length in lengths]
    return [
        GenerationRequest(f"r{index}", prompt, KINDS[index % 3], StopParams(max_tokens), n=1 + (index == 5))
        for index, prompt in enumerate(prompts)
    ]


def answers(
    executor: Executor, requests: list[GenerationRequest], config: SchedulerConfig, *, runs_ahead: bool = False
) -> list[Tokens]:
    engine = Engine(executor, config)
    for request in requests:
        engine.add(request)
    events = run_to_end(engine, runs_ahead=runs_ahead)
    return [
        {choice: tokens_of(events, request.request_id, choice) for choice in range(request.n)} for request in requests
    ]


@lru_cache
def alone(kind: str, architecture: str) -> list[Tokens]:
    executor = executor_of(kind, architecture)
    config = SchedulerConfig(prefix_cache=False)
    return [answers(executor, [request], config)[0] for request in requests_of(executor.vocab_size)]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("chunk", [1, 7, 64, 512])
def test_alone_equals_batched_equals_chunked(kind: str, architecture: str, chunk: int) -> None:
    executor = executor_of(kind, architecture)
    config = SchedulerConfig(max_chunk_tokens=chunk, max_prompt_tokens_beside_streams=chunk)
    assert answers(executor, requests_of(executor.vocab_size), config) == alone(kind, architecture)


@pytest.mark.parametrize("layers", [LAYERS_OF_ONE_KIND, ("native", "gemma3")])
def test_steps_that_begin_by_themselves_change_nothing(
    layers: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    executor, expected = executor_of(*layers), alone(*layers)
    relayed: list[bool] = []
    plain = NativeExecutor.relay

    def relay(self: NativeExecutor, *arguments: Any) -> Any:
        told = plain(self, *arguments)
        relayed.append(told[1] is None)
        return told

    monkeypatch.setattr(NativeExecutor, "relay", relay)
    requests = [
        replace(request, stopping=replace(request.stopping, max_tokens=12 + 3 * index))
        for index, request in enumerate(requests_of(executor.vocab_size))
    ]
    longer = answers(executor, requests, SchedulerConfig(), runs_ahead=True)
    for tokens, short in zip(longer, expected, strict=True):
        assert {choice: told[:12] for choice, told in tokens.items()} == short
    assert longer == answers(executor, requests, SchedulerConfig())
    assert sum(relayed) > 10


def test_no_step_begins_by_itself_after_a_token_that_ends_an_answer() -> None:
    executor, expected = executor_of(*LAYERS_OF_ONE_KIND), alone(*LAYERS_OF_ONE_KIND)
    requests = requests_of(executor.vocab_size)
    late = [index for index, tokens in enumerate(expected) if tokens[0].index(tokens[0][8]) > 4]
    assert late
    for index in late:
        stopping = StopParams(40, stop_token_ids=(expected[index][0][8],))
        stopped = [*requests[:index], replace(requests[index], stopping=stopping), *requests[index + 1 :]]
        told = answers(executor, stopped, SchedulerConfig(), runs_ahead=True)
        assert told[index][0] == expected[index][0][: expected[index][0].index(expected[index][0][8])]
        assert told[:index] + told[index + 1 :] == expected[:index] + expected[index + 1 :]


@pytest.mark.parametrize("kind", MAKERS)
def test_what_comes_from_the_prefix_cache_changes_nothing(kind: str) -> None:
    executor = executor_of(kind, "gemma3")
    requests = requests_of(executor.vocab_size)
    engine = Engine(executor, SchedulerConfig())
    for round_number in range(2):
        for request, expected in zip(requests, alone(kind, "gemma3"), strict=True):
            engine.add(request)
            events = run_to_end(engine)
            assert tokens_of(events, request.request_id) == expected[0]
        assert (engine.stats().num_cached_tokens > 0) == (round_number == 1)


configs = st.builds(
    SchedulerConfig,
    max_batch_tokens=st.just(128),
    max_sequences=st.integers(1, 8),
    max_chunk_tokens=st.sampled_from((1, 5, 16, 64)),
    prefix_cache=st.booleans(),
)


@given(
    st.sampled_from((LAYERS_OF_ONE_KIND, LAYERS_OF_TWO_KINDS)),
    configs,
    st.integers(0, 80),
    st.tuples(st.permutations(range(8)), st.lists(st.integers(0, 6), min_size=8, max_size=8)),
    st.tuples(st.sampled_from((None, (3, None), (200, None), (3, 400))), st.booleans()),
)
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
def test_random_schedules_on_the_native_executor(
    kind: tuple[str, str],
    config: SchedulerConfig,
    num_taken: int,
    arrivals: tuple[list[int], list[int]],
    surroundings: tuple[tuple[int, int | None] | None, bool],
) -> None:
    """Arrivals in any order and at any time, scarce blocks, forks, pre-emption, spills to memory and disk, restores."""
    tier_blocks, runs_ahead = surroundings
    executor = executor_of(*kind)
    requests = requests_of(executor.vocab_size)
    scarce = ScarceExecutor(executor, executor.num_blocks - 30 - num_taken)
    with tempfile.TemporaryDirectory() as folder:
        tiers = None if tier_blocks is None else build_tiers(scarce, Path(folder), *tier_blocks)
        engine = Engine(scarce, config, tiers=tiers, local=scarce.local_layers)
        events = []
        for index, gap in zip(*arrivals, strict=True):
            engine.add(requests[index])
            for number in range(gap):
                is_last = number == gap - 1  # somebody comes after it
                events += engine.step(may_run_ahead=lambda may=runs_ahead and not is_last: may)  # type: ignore[misc]
                engine.scheduler.check()
        events += run_to_end(engine, runs_ahead=runs_ahead)
        for request, expected in zip(requests, alone("native", kind[1]), strict=True):
            for choice in range(request.n):
                assert tokens_of(events, request.request_id, choice) == expected[choice]
            engine.preload(request)
        for request in requests:  # again, from what is left in the pool and below it
            engine.add(request)
        events = run_to_end(engine, runs_ahead=runs_ahead)
        engine.close()
    for request, expected in zip(requests, alone("native", kind[1]), strict=True):
        assert tokens_of(events, request.request_id) == expected[0]


def build_tiers(executor: "ScarceExecutor", folder: Path, host_blocks: int, disk_blocks: int | None) -> BlockTiers:
    sizes = (executor.bytes_per_block, executor.bytes_per_local_block)
    disk = None if disk_blocks is None else DiskTier(folder, b"f" * 16, sizes, disk_blocks * max(sizes))
    local = LocalMemory(executor) if executor.bytes_per_local_block else None
    return BlockTiers(executor, host_blocks * max(sizes), disk, clock=lambda: 0, local=local)


class ScarceExecutor:
    """An executor that owns to fewer blocks than it has, and is not closed with its engine."""

    def __init__(self, executor: Executor, num_blocks: int) -> None:
        assert isinstance(executor, NativeExecutor)
        self.start, self.finish = executor.start, executor.finish
        self.prepare, self.relay, self.hold = executor.prepare, executor.relay, executor.hold
        self.num_blocks = num_blocks
        self.vocab_size, self.max_rows = executor.vocab_size, executor.max_rows
        self.forward, self.copy_blocks = executor.forward, executor.copy_blocks
        self.copy_local_blocks = executor.copy_local_blocks
        self.read_block, self.write_block = executor.read_block, executor.write_block
        self.read_local_block, self.write_local_block = executor.read_local_block, executor.write_local_block
        self.bytes_per_block, self.bytes_per_local_block = executor.bytes_per_block, executor.bytes_per_local_block
        self.observed = executor.observed
        window = tiny_spec("gemma3").attention.local_window
        num_local = min(60, num_blocks)
        self.local_layers = LocalLayers(num_local, window) if executor.bytes_per_local_block else None

    def close(self) -> None:
        pass


def test_the_default_model_says_the_same_alone_and_in_company(smollm2_path: Path) -> None:
    prompts = ["The capital of France is", "Once upon a time", "2 + 2 =", "A recipe for bread:", "你好", "def f(x):"]
    config = EngineConfig(context_length=256, num_blocks=100, prefix_cache=False)
    service = build_service(str(smollm2_path), config)

    def ask(index: int) -> GenerationRequest:
        kind = {"temperature": 0} if index % 2 else {"seed": 5, "temperature": 0.7}
        return service.admit(service.encode(prompts[index]), kind | {"max_tokens": 16})

    together = [answer.text for answer in service.complete_all([ask(index) for index in range(len(prompts))])]
    apart = [service.complete(ask(index)).text for index in range(len(prompts))]
    service.close()
    assert together == apart
    assert len(set(together)) == len(prompts)


def test_the_default_model_says_the_same_with_drafts(smollm2_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a fixed number of drafts: on a busy machine measured costs may speak against any."""
    monkeypatch.setitem(POLICIES, "measured", lambda _: FixedPolicy(5))
    prompts = [
        "Repeat after me: one two three four five six. One two three four",
        "def add(a, b):\n    return a + b\n\n\ndef sub(a, b):\n    return a",
        "The capital of France is",
    ]
    told = []
    for choice in ("off", "ngram", "auto"):
        config = EngineConfig(context_length=256, num_blocks=100, prefix_cache=False, speculate=choice)
        service = build_service(str(smollm2_path), config)
        kinds = ({"temperature": 0}, {"seed": 5, "temperature": 0.7, "top_p": 0.9, "repetition_penalty": 1.1})
        requests = [
            service.admit(service.encode(text), kind | {"max_tokens": 40}) for text in prompts for kind in kinds
        ]
        told.append([answer.choices[0].token_ids for answer in service.complete_all(requests)])
        assert (service.stats().num_accepted_tokens > 0) == (choice != "off")
        service.close()
    assert told[0] == told[1] == told[2]
