"""Windows in the whole engine: the same text in any company, and blocks that really come back."""

from dataclasses import replace

import numpy as np
import pytest
from tests.factories.tiny_models import random_weights, tiny_spec

from engine.harness import make_request, run_to_end, small_config, tokens_of
from vivace.cache.policies import parse_policy
from vivace.engine.build import EngineConfig
from vivace.engine.core import Engine
from vivace.execute.native import NativeExecutor
from vivace.graph.build import build_graph
from vivace.schedule.config import SchedulerConfig
from vivace.types.errors import ConfigError, ContextLengthError
from vivace.types.events import TokenEvent
from vivace.types.request import GenerationRequest, SamplingParams
from vivace.types.step import LocalLayers

POLICIES = ("full", "window:24:4", "adaptive:40:16:2:0", "keytokens:32:16:16", "adaptive:32:16:2:64:16")


def make_engine(
    policy: str, num_blocks: int = 200, model: str = "llama", *, num_kv_heads: int = 2, **settings: object
) -> Engine:
    spec = tiny_spec(model, head_dim=32, num_kv_heads=num_kv_heads)
    executor = NativeExecutor(
        build_graph(spec),
        random_weights(spec),
        num_blocks=num_blocks,
        num_local_blocks=num_blocks,
        num_threads=1,
        kv_format="int8",
    )
    window = spec.attention.local_window
    local = LocalLayers(num_blocks, window) if window else None
    return Engine(executor, small_config(policy=parse_policy(policy), **settings), local=local)


def requests() -> list[GenerationRequest]:
    random = np.random.default_rng(4)
    shared = random.integers(0, 97, 50).tolist()
    prompts = [[*shared, *random.integers(0, 97, count).tolist()] for count in (1, 9, 30, 60)]
    sampling = SamplingParams(seed=3, temperature=12.0)  # flat, so that a little error shows in what is drawn
    return [
        make_request(f"r{index}", prompt, 40, sampling, n=1 + index % 2, ignore_eos=True)
        for index, prompt in enumerate(prompts)
    ]


def answers(engine: Engine, wanted: list[GenerationRequest]) -> list[list[int]]:
    for request in wanted:
        engine.add(request)
    events = run_to_end(engine)
    return [tokens_of(events, request.request_id, choice) for request in wanted for choice in range(request.n)]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("model", ["llama", "gemma3"])
@pytest.mark.parametrize(
    "settings",
    [
        {"max_chunk_tokens": 7},
        {"prefix_cache": False},
        {"num_blocks": 14},
        {"num_blocks": 14, "max_chunk_tokens": 5, "max_prompt_tokens_beside_streams": 5},
    ],
    ids=str,
)
def test_the_same_text_alone_in_company_in_chunks_and_after_preemption(
    policy: str, model: str, settings: dict[str, int]
) -> None:
    alone = [
        tokens
        for request in requests()
        for tokens in answers(make_engine(policy, model=model, prefix_cache=False), [request])
    ]
    engine = make_engine(policy, model=model, **settings)  # type: ignore[arg-type]
    assert answers(engine, requests()) == alone
    assert answers(engine, requests()) == alone  # now with what the prefix cache holds


@pytest.mark.parametrize("num_kv_heads", [4, 2, 1], ids=["MHA", "GQA", "MQA"])
@pytest.mark.parametrize("policy", ["full", "keytokens:32:16:16"])
def test_every_sharing_of_heads_says_the_same_in_chunks_and_company(policy: str, num_kv_heads: int) -> None:
    whole = make_engine(policy, num_kv_heads=num_kv_heads, prefix_cache=False)
    alone = [tokens for request in requests() for tokens in answers(whole, [request])]
    chunked = make_engine(policy, 16, num_kv_heads=num_kv_heads, max_chunk_tokens=7)
    assert answers(chunked, requests()) == alone


def test_a_long_answer_under_a_window_holds_few_blocks() -> None:
    held = {}
    for policy in ("full", "window:24:4"):
        engine = make_engine(policy)
        engine.add(make_request("r", range(90), 300, ignore_eos=True))
        most = 0
        while engine.has_work:
            told = engine.step()
            engine.scheduler.check()
            if any(isinstance(event, TokenEvent) for event in told):
                most = max(most, engine._pool.num_held)
        held[policy] = most
    assert held["full"] == -(-390 // 16)
    assert held["window:24:4"] <= 7  # what the prompt took before it was computed


def test_the_policy_is_a_setting_that_is_checked() -> None:
    assert EngineConfig(kv_policy="window:64").kv_policy == "window:64"
    assert isinstance(SchedulerConfig().policy, type(parse_policy("full")))
    with pytest.raises(ConfigError, match="windows"):
        EngineConfig(kv_policy="windows")


def policies_of(wanted: list[GenerationRequest]) -> list[GenerationRequest]:
    """The same requests, each under every policy."""
    return [
        replace(request, kv_policy=policy, request_id=f"{request.request_id}-{policy}")
        for request in wanted
        for policy in POLICIES
    ]


@pytest.mark.parametrize("model", ["llama", "gemma3"])
@pytest.mark.parametrize("num_blocks", [16, 60])
def test_requests_of_all_policies_share_an_engine_and_its_cache_without_mixing(model: str, num_blocks: int) -> None:
    wanted = policies_of(requests()[2:])
    alone = [
        tokens
        for request in wanted
        for tokens in answers(make_engine("full", model=model, prefix_cache=False), [request])
    ]
    engine = make_engine("window:24:4", num_blocks, model, max_chunk_tokens=9)
    assert answers(engine, wanted) == alone
    assert answers(engine, wanted) == alone
    assert engine.stats().num_cached_tokens > 0
    assert len({tuple(tokens) for tokens in alone[: 2 * len(POLICIES)]}) >= len(POLICIES)  # policies do differ


@pytest.mark.parametrize(("policy", "most"), [("keytokens:32:16:16", 10), ("adaptive:32:16:2:64:16", 8)])
def test_blocks_without_attention_return_to_the_pool_while_the_answer_goes_on(policy: str, most: int) -> None:
    engine = make_engine(policy, max_chunk_tokens=16)
    engine.add(make_request("r", np.arange(200) % 97, 150, ignore_eos=True))
    held = []
    while engine.has_work:
        engine.step()
        engine.scheduler.check()
        held.append(engine._pool.num_held)
    assert max(held) <= most < 350 // 16


def test_local_layers_hold_their_window_and_give_the_rest_back() -> None:
    engine = make_engine("full", model="gemma3", max_chunk_tokens=16)
    engine.add(make_request("r", np.arange(200) % 97, 50, ignore_eos=True))
    local = engine.scheduler.blocks.pools[1]
    held = []
    while engine.has_work:
        engine.step()
        engine.scheduler.check()
        held.append((engine._pool.num_held, local.num_held))
    assert max(main for main, _ in held) == 16
    assert max(mine for _, mine in held) <= 3
    assert engine.stats().num_local_blocks == 200 and local.num_cached > 0


def test_a_prompt_longer_than_the_pool_is_read_through_a_window() -> None:
    alone = answers(make_engine("window:24:4"), [make_request("r", np.arange(220) % 97, 20, ignore_eos=True)])
    engine = make_engine("window:24:4", num_blocks=7, max_chunk_tokens=16)
    assert answers(engine, [make_request("r", np.arange(220) % 97, 20, ignore_eos=True)]) == alone
    with pytest.raises(ContextLengthError):
        engine.add(make_request("s", np.arange(220) % 97, 20, kv_policy="full"))
