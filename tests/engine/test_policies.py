"""Windows in the whole engine: the same text in any company, and blocks that really come back."""

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
from vivace.types.errors import ConfigError
from vivace.types.events import TokenEvent
from vivace.types.request import GenerationRequest, SamplingParams

POLICIES = ("full", "window:24:4", "adaptive:40:16:2")


def make_engine(policy: str, num_blocks: int = 200, **settings: object) -> Engine:
    spec = tiny_spec("llama", head_dim=32)
    executor = NativeExecutor(
        build_graph(spec), random_weights(spec), num_blocks=num_blocks, num_threads=1, kv_format="int8"
    )
    return Engine(executor, small_config(policy=parse_policy(policy), **settings))


def requests() -> list[GenerationRequest]:
    random = np.random.default_rng(4)
    shared = random.integers(0, 97, 50).tolist()
    prompts = [[*shared, *random.integers(0, 97, count).tolist()] for count in (1, 9, 30, 60)]
    sampling = SamplingParams(seed=3)
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
def test_the_same_text_alone_in_company_in_chunks_and_after_preemption(policy: str, settings: dict[str, int]) -> None:
    alone = [tokens for request in requests() for tokens in answers(make_engine(policy, prefix_cache=False), [request])]
    engine = make_engine(policy, **settings)  # type: ignore[arg-type]
    assert answers(engine, requests()) == alone
    assert answers(engine, requests()) == alone  # now with what the prefix cache holds


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
