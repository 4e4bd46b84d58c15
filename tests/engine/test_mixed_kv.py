"""Codes with float16 copies of the first and the latest positions, in the whole engine: the text and the bytes."""

import numpy as np
import pytest
from tests.factories.tiny_models import random_weights, tiny_spec

from engine.harness import make_request, run_to_end, small_config, tokens_of
from vivace.cache.policies import parse_policy
from vivace.engine.core import Engine
from vivace.engine.kv_memory import local_reach
from vivace.execute.native import NativeExecutor
from vivace.graph.build import build_graph
from vivace.plan.kv import plan_kv, shape_of
from vivace.types.events import TokenEvent
from vivace.types.request import GenerationRequest, SamplingParams
from vivace.types.step import LocalLayers

FORMAT = "int4+f16"


def make_engine(
    policy: str = "full", num_blocks: int = 200, model: str = "llama", *, apart: bool = True, **settings: object
) -> Engine:
    """With `apart` copies have blocks of their own, else a block holds codes and copies."""
    spec = tiny_spec(model, head_dim=32)
    executor = NativeExecutor(
        build_graph(spec),
        random_weights(spec),
        num_blocks=num_blocks,
        num_local_blocks=num_blocks if apart else None,
        num_threads=1,
        kv_format=FORMAT,
    )
    local = LocalLayers(num_blocks, *local_reach(spec, FORMAT)) if apart else None
    return Engine(executor, small_config(policy=parse_policy(policy), **settings), local=local)


def requests() -> list[GenerationRequest]:
    random = np.random.default_rng(4)
    shared = random.integers(0, 97, 130).tolist()
    prompts = [[*shared, *random.integers(0, 97, count).tolist()] for count in (1, 9, 60)]
    sampling = SamplingParams(seed=3, temperature=12.0)  # flat, so that a little error shows in what is drawn
    return [
        make_request(f"r{index}", prompt, 30, sampling, n=1 + index % 2, ignore_eos=True)
        for index, prompt in enumerate(prompts)
    ]


def answers(engine: Engine, wanted: list[GenerationRequest]) -> list[list[int]]:
    for request in wanted:
        engine.add(request)
    events = run_to_end(engine)
    engine.scheduler.check()
    return [tokens_of(events, request.request_id, choice) for request in wanted for choice in range(request.n)]


@pytest.mark.parametrize("policy", ["full", "window:24:4", "window:100:20", "keytokens:32:16:16"])
@pytest.mark.parametrize("model", ["llama", "gemma3"])
def test_the_same_text_alone_in_company_in_chunks_and_after_preemption(policy: str, model: str) -> None:
    alone = [
        tokens
        for request in requests()
        for tokens in answers(make_engine(policy, model=model, prefix_cache=False), [request])
    ]
    assert answers(make_engine(policy, model=model, apart=False), requests()) == alone
    for settings in ({"max_chunk_tokens": 7}, {"num_blocks": 28, "max_chunk_tokens": 11}):
        engine = make_engine(policy, model=model, **settings)  # type: ignore[arg-type]
        assert answers(engine, requests()) == alone
        assert answers(engine, requests()) == alone  # now with what the prefix cache holds


@pytest.mark.parametrize("length", [3, 16, 81, 96, 300])
@pytest.mark.parametrize("model", ["llama", "gemma3"])
def test_a_plan_counts_the_bytes_that_an_engine_holds(length: int, model: str) -> None:
    engine = make_engine(model=model, max_chunk_tokens=16)
    engine.add(make_request("r", [position % 97 for position in range(length)], 5, ignore_eos=True))
    while engine.has_work and not any(isinstance(event, TokenEvent) for event in engine.step()):
        pass
    stats, plan = engine.stats(), plan_kv(shape_of(tiny_spec(model, head_dim=32)), length, 1, FORMAT)
    held = stats.held_blocks * plan.bytes_per_block + stats.held_local_blocks * plan.bytes_per_local_block
    assert plan.total_bytes == held
    executor = engine._executor
    assert (plan.bytes_per_block, plan.bytes_per_local_block) == (
        executor.bytes_per_block,
        executor.bytes_per_local_block,
    )
    whole = plan_kv(plan.shape, length, 1, "f16").total_bytes
    assert model == "gemma3" or (plan.total_bytes < whole) == (length == 300)


def test_copies_are_given_back_as_a_text_grows() -> None:
    engine = make_engine()
    engine.add(make_request("r", range(90), 300, ignore_eos=True))
    most = 0
    while engine.has_work:
        told = engine.step()
        if any(isinstance(event, TokenEvent) for event in told):
            most = max(most, engine.stats().held_local_blocks)
    assert most <= 8  # the first, four or five of the latest, and what the prompt took before it was computed
