"""Chats that outgrow the context and go on in bounded memory; and plans that agree with what an engine holds."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from tests.factories.tiny_models import random_weights, tiny_spec

from engine.harness import make_request, run_to_end, small_config
from factories.text_vocabularies import byte_level
from vivace.cache.policies import num_tokens_gone, parse_policy
from vivace.cache.tiers import BlockTiers, LocalMemory, name_of
from vivace.engine.core import Engine
from vivace.engine.long_chat import LongChat, chat_policy, choose_reach
from vivace.engine.loop import EngineLoop
from vivace.engine.service import ModelService
from vivace.execute.native import NativeExecutor
from vivace.graph.build import build_graph
from vivace.plan.kv import plan_kv, shape_of
from vivace.schedule.config import SchedulerConfig
from vivace.text.build import build_template, build_tokenizer
from vivace.types.errors import ContextLengthError
from vivace.types.events import TokenEvent
from vivace.types.request import ChatMessage
from vivace.types.step import LocalLayers

CONTEXT, TRAINED = 256, 3000


@pytest.fixture
def service() -> Iterator[ModelService]:
    vocabulary = byte_level()
    tokenizer = build_tokenizer(vocabulary)
    spec = replace(tiny_spec("llama", head_dim=32), vocab_size=tokenizer.vocab_size, context_length=TRAINED)
    executor = NativeExecutor(build_graph(spec), random_weights(spec), num_blocks=110, num_threads=1)
    config = SchedulerConfig(
        max_batch_tokens=64, max_sequences=8, max_chunk_tokens=64, context_length=CONTEXT, eos_ids=tokenizer.eos_ids
    )
    reach = choose_reach(CONTEXT, TRAINED, 110 * 16, 64)
    service = ModelService(
        "tiny",
        spec,
        tokenizer,
        build_template(vocabulary, tokenizer),
        EngineLoop(Engine(executor, config)),
        context_length=CONTEXT,
        long_chat=LongChat("window", reach),
    )
    yield service
    service.close()


def chat(num_turns: int) -> list[ChatMessage]:
    messages = [ChatMessage("system", "be kind")]
    for turn in range(num_turns):
        messages += [ChatMessage("user", f"question {turn} " + "x" * 30), ChatMessage("assistant", "answer " * 4)]
    return messages[:-1]


@pytest.mark.parametrize("kind", ["window", "adaptive"])
def test_a_chat_that_has_outgrown_the_context_goes_on_and_tells_what_is_gone(service: ModelService, kind: str) -> None:
    messages = chat(22)
    whole = service.encode_chat(messages)
    assert 4 * CONTEXT < len(whole) < TRAINED
    request = service.admit_chat(messages, {"max_tokens": 12, "long_chat": kind, "ignore_eos": True})
    assert request.prompt_ids == whole and request.kv_policy == chat_policy(kind, CONTEXT)
    assert request.dropped_tokens == num_tokens_gone(parse_policy(str(request.kv_policy)), len(whole)) > CONTEXT
    answer = service.complete(request)
    assert answer.usage.dropped_tokens == request.dropped_tokens
    assert answer.usage.completion_tokens == 12
    short = service.admit_chat(chat(2), {"max_tokens": 4, "long_chat": kind})
    assert short.kv_policy is None and short.dropped_tokens == 0
    with pytest.raises(ContextLengthError):
        service.admit_chat(messages, {"max_tokens": 12, "long_chat": "reject"})


def test_the_next_turn_of_a_windowed_chat_finds_the_turn_before_it(service: ModelService) -> None:
    for num_turns in (20, 21):
        request = service.admit_chat(chat(num_turns), {"max_tokens": 2, "ignore_eos": True})
        cached = service.complete(request).usage.cached_tokens
    assert cached > 0.9 * len(service.encode_chat(chat(20)))


def test_beyond_what_the_model_was_trained_for_whole_turns_go(service: ModelService) -> None:
    request = service.admit_chat(chat(80), {"max_tokens": 2, "ignore_eos": True})
    assert len(request.prompt_ids) <= TRAINED
    assert request.dropped_tokens > len(service.encode_chat(chat(80))) - TRAINED
    assert service.complete(request).usage.completion_tokens == 2


def test_a_memory_too_small_for_a_policy_reaches_no_further_than_the_context() -> None:
    assert choose_reach(2048, 8192, 8192, 512) == 8192
    assert choose_reach(2048, 8192, 1024, 512) == 2048


def test_a_long_chat_of_a_stranger_evicts_no_running_one() -> None:
    """Its prompt takes blocks bit by bit; the one that runs is never pre-empted for it, and neither fails."""
    spec = tiny_spec("llama", head_dim=32)
    executor = NativeExecutor(build_graph(spec), random_weights(spec), num_blocks=24, num_threads=1)
    engine = Engine(executor, small_config(max_chunk_tokens=16, max_batch_tokens=32))
    engine.add(make_request("mine", range(60), 150, ignore_eos=True))
    for _ in range(8):
        engine.step()
    for number in range(3):
        prompt = [(7 * position + number) % 97 for position in range(900)]
        engine.add(make_request(f"stranger{number}", prompt, 20, ignore_eos=True, kv_policy="window:64:4"))
    events = run_to_end(engine)
    assert engine.stats().num_preemptions == 0 and engine.stats().num_failed_requests == 0
    assert len([event for event in events if isinstance(event, TokenEvent)]) >= 150 - 8 + 60
    with pytest.raises(ContextLengthError):
        engine.add(make_request("greedy", range(97), 10_000))


@pytest.mark.parametrize("length", [3, 16, 37, 96, 200])
@pytest.mark.parametrize("kv_format", ["f16", "int8", "int4:*,f16:1", "int8:1,int8-int4:1,bf16:1"])
@pytest.mark.parametrize("num_kv_heads", [4, 2, 1], ids=["MHA", "GQA", "MQA"])
def test_a_plan_counts_the_bytes_that_an_engine_holds_with_local_layers(
    length: int, kv_format: str, num_kv_heads: int
) -> None:
    spec = tiny_spec("gemma3", head_dim=32, num_kv_heads=num_kv_heads)
    executor = NativeExecutor(
        build_graph(spec), random_weights(spec), num_blocks=40, num_local_blocks=20, num_threads=1, kv_format=kv_format
    )
    local = LocalLayers(20, spec.attention.local_window)
    engine = Engine(executor, small_config(max_chunk_tokens=16), local=local)
    engine.add(make_request("r", [position % 97 for position in range(length)], 5, ignore_eos=True))
    while engine.has_work and not any(isinstance(event, TokenEvent) for event in engine.step()):
        pass
    stats, plan = engine.stats(), plan_kv(shape_of(spec), length, 1, kv_format)
    held = stats.held_blocks * executor.bytes_per_block + stats.held_local_blocks * executor.bytes_per_local_block
    assert plan.total_bytes == held
    assert (plan.saved_by_windows > 0) == (length > 32)
    assert plan.bytes_per_local_block == executor.bytes_per_local_block


@pytest.mark.parametrize("kv_format", ["f16", "int8:1,int4:*"])
@pytest.mark.parametrize("model", ["llama", "gemma3"])
def test_what_goes_to_the_tiers_weighs_what_the_plan_says(model: str, kv_format: str) -> None:
    spec = tiny_spec(model, head_dim=32)
    num_local = 12 if spec.attention.local_window else None
    executor = NativeExecutor(
        build_graph(spec),
        random_weights(spec),
        num_blocks=20,
        num_local_blocks=num_local,
        num_threads=1,
        kv_format=kv_format,
    )
    local = None if num_local is None else LocalLayers(num_local, spec.attention.local_window)
    below = None if num_local is None else LocalMemory(executor)
    tiers = BlockTiers(executor, 1 << 30, clock=lambda: 0, local=below)
    engine = Engine(executor, small_config(max_chunk_tokens=16), tiers=tiers, local=local)
    prompts = [[(position + 13 * number) % 97 for position in range(250)] for number in range(3)]
    for number, prompt in enumerate(prompts):
        engine.add(make_request(str(number), prompt, 5, ignore_eos=True))
        run_to_end(engine)
    plan, host = plan_kv(shape_of(spec), 250, 1, kv_format), tiers.host
    num_main = sum(name_of(key, 0) in host for prompt in prompts for key in keys_of(engine, prompt))
    num_of_local = sum(name_of(key, 1) in host for prompt in prompts for key in keys_of(engine, prompt))
    assert num_main > 10 and (num_of_local > 10) == (num_local is not None)
    assert host.num_bytes == num_main * plan.bytes_per_block + num_of_local * plan.bytes_per_local_block


def keys_of(engine: Engine, prompt: list[int]) -> list[bytes]:
    return engine.scheduler.blocks.keys_of(make_request("r", [*prompt, 0], 1))
