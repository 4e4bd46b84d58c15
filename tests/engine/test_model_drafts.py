"""Models that guess: a smaller one with its own pool, and the first layers of the target over the target's."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.factories.tiny_models import random_weights, tiny_spec

from engine.fake_executor import FakeExecutor
from engine.harness import GREEDY, finish_of, make_request, run_to_end, tokens_of
from engine.test_schedules import Arrival, Plan, arrivals, assert_same_as_alone, configs
from engine.test_speculation import UNHURRIED, play
from vivace.cache.policies import FULL_POLICY, parse_policy
from vivace.engine.build import EngineConfig, build_service
from vivace.engine.core import Engine
from vivace.execute.native import NativeExecutor
from vivace.execute.reference import ReferenceExecutor
from vivace.graph.build import build_graph
from vivace.schedule.config import SchedulerConfig
from vivace.speculate.config import SpeculationConfig
from vivace.speculate.draft_memory import OwnMemory, TargetMemory
from vivace.speculate.drafter import CATCH_UP_ROWS, ModelDrafter
from vivace.speculate.speculator import EngineSpeculator
from vivace.types.events import FailEvent
from vivace.types.request import SamplingParams

SAMPLED = SamplingParams(
    temperature=0.8, top_p=0.9, repetition_penalty=1.1, presence_penalty=0.2, logit_bias=((3, -50.0), (5, 2.0)), seed=11
)


def speculator_of(drafter: ModelDrafter, policy: str = "fixed", count: int = 4) -> EngineSpeculator:
    return EngineSpeculator(SpeculationConfig((drafter.name,), policy, count), None, [drafter])


def drafter_of(num_blocks: int = 64, **fields: object) -> ModelDrafter:
    return ModelDrafter("draft", FakeExecutor(num_blocks, **fields), OwnMemory(num_blocks))  # type: ignore[arg-type]


@given(
    configs,
    st.integers(6, 12),
    st.lists(arrivals(), min_size=1, max_size=5),
    st.integers(1, 12),
    st.tuples(st.sampled_from(["fixed", "window", "measured"]), st.integers(1, 6)),
)
@settings(max_examples=100, **UNHURRIED)
def test_text_with_a_draft_model_is_text_without(
    config: SchedulerConfig, num_blocks: int, plan: list[Arrival], draft_blocks: int, lengths: tuple[str, int]
) -> None:
    """Pre-emption, prefixes, chunks, cancels, and a draft pool that is too small for all."""
    events = play(config, num_blocks, plan, speculator_of(drafter_of(draft_blocks), *lengths))
    assert_same_as_alone(Plan(tuple(plan), ()), events, has_local=False)


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_a_draft_that_is_the_model_itself_is_always_right(sampling: SamplingParams) -> None:
    """At any temperature: drafts are drawn with the numbers that the target draws with."""
    drafter = drafter_of()
    engine = Engine(FakeExecutor(), SchedulerConfig(), speculator=speculator_of(drafter))
    for number in range(3):
        prompt = [number + 1] * (40 + number)
        engine.add(make_request(f"r{number}", prompt=prompt, max_tokens=31, sampling=sampling))
    events = run_to_end(engine)
    for number in range(3):
        usage = finish_of(events, f"r{number}").speculation
        assert usage is not None and usage.num_accepted == usage.num_drafted == 24
        assert (usage.num_turns, usage.num_tokens) == (6, 30)
        assert usage.accepted_at == usage.tried_at == (6, 6, 6, 6)
    assert drafter.num_passes == 6 * 4


def test_all_streams_share_the_passes_of_a_draft_model() -> None:
    executor = FakeExecutor()
    engine = Engine(
        FakeExecutor(), SchedulerConfig(), speculator=speculator_of(ModelDrafter("draft", executor, OwnMemory(64)))
    )
    for number in range(4):
        engine.add(make_request(f"r{number}", prompt=[number + 1] * 4, max_tokens=11))
    run_to_end(engine)
    assert executor.batch_sizes[:4] == [20, 4, 4, 4]  # the prompts and first tokens of all, then a row for each
    assert executor.batch_sizes[4:] == [8, 4, 4, 4]  # the last draft and the token after it


def test_a_long_prompt_is_caught_up_with_over_several_steps() -> None:
    drafter = drafter_of()
    engine = Engine(FakeExecutor(), SchedulerConfig(), speculator=speculator_of(drafter))
    engine.add(make_request(prompt=[7] * (2 * CATCH_UP_ROWS + 20), max_tokens=20))
    events = run_to_end(engine)
    usage = finish_of(events).speculation
    assert usage is not None and usage.num_turns > usage.num_tokens / 5 and usage.num_accepted == usage.num_drafted > 0


def test_blocks_of_a_draft_model_are_given_back_when_answers_end_fail_or_are_cancelled() -> None:
    memory = OwnMemory(64)
    speculator = speculator_of(ModelDrafter("draft", FakeExecutor(), memory))
    engine = Engine(FakeExecutor(poison=9), SchedulerConfig(), speculator=speculator)
    for name, prompt in (("ends", [1, 2]), ("cancelled", [3, 4]), ("fails", [5, 6])):
        engine.add(make_request(name, prompt=prompt, max_tokens=40 if name == "ends" else None))
    events = engine.step() + engine.step()
    assert memory.num_held >= 2
    events += engine.cancel("cancelled") + run_to_end(engine)
    assert any(isinstance(event, FailEvent) for event in events)
    assert memory.num_held == 0


def test_a_draft_model_that_breaks_costs_no_answer() -> None:
    def explode(batch: object) -> None:
        raise RuntimeError("boom")

    drafter = drafter_of(before_forward=explode)
    request = make_request(prompt=[1, 2, 3], max_tokens=12)
    told = []
    for speculator in (None, speculator_of(drafter)):
        engine = Engine(FakeExecutor(), SchedulerConfig(), speculator=speculator)
        engine.add(request)
        told.append(tokens_of(run_to_end(engine)))
    assert told[0] == told[1] and len(told[0]) == 12


def test_a_draft_row_that_is_not_a_number_ends_the_guess() -> None:
    engine = Engine(FakeExecutor(), SchedulerConfig(), speculator=speculator_of(drafter_of(poison=2)))
    engine.add(make_request(prompt=[2, 2, 2], max_tokens=60))
    events = run_to_end(engine)
    alone = Engine(FakeExecutor(), SchedulerConfig())
    alone.add(make_request(prompt=[2, 2, 2], max_tokens=60))
    assert tokens_of(events) == tokens_of(run_to_end(alone))


@pytest.mark.parametrize("make", [NativeExecutor, ReferenceExecutor], ids=["native", "reference"])
@pytest.mark.parametrize("kv_policy", ["full", "window:20:4"])
@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_text_with_an_early_exit_is_text_without(make: type, kv_policy: str, sampling: SamplingParams) -> None:
    spec = tiny_spec("llama", num_layers=4)
    policy = parse_policy(kv_policy)
    told, usages = [], []
    for layers in (0, 1, 3):
        executor = make(build_graph(spec), random_weights(spec), num_blocks=24, max_rows=64)
        speculator = None
        if layers:
            early = executor.early_exit(layers, 64)
            speculator = speculator_of(ModelDrafter("self", early, TargetMemory(), policy=policy or FULL_POLICY))
        engine = Engine(
            executor, SchedulerConfig(max_batch_tokens=32, max_sequences=8, policy=policy), speculator=speculator
        )
        prompts = [np.arange(number + 3, number + 30).tolist() for number in range(3)]
        for number, prompt in enumerate(prompts):
            engine.add(make_request(f"r{number}", prompt=prompt, max_tokens=40, sampling=sampling, n=1 + number % 2))
        events = run_to_end(engine)
        told.append([tokens_of(events, f"r{number}", k) for number in range(3) for k in range(1 + number % 2)])
        usages.append(finish_of(events, "r0").speculation)
    assert told[0] == told[1] == told[2]
    assert usages[0] is None and all(usage is not None and usage.num_drafted > 20 for usage in usages[1:])


def test_the_default_model_drafts_for_itself_without_an_error(smollm2_path: Path) -> None:
    """As its own draft every guess stands; by its own first layers some do; the text is that of plain decoding."""
    texts = []
    for fields in (
        {},
        {"speculate": "draft", "draft_model": str(smollm2_path)},
        {"speculate": "self"},
    ):
        service = build_service(str(smollm2_path), EngineConfig(num_blocks=40, context_length=512, **fields))
        request = service.admit(service.encode("The capital of France is"), {"temperature": 0, "max_tokens": 24})
        answer = service.complete(request)
        texts.append(answer.choices[0].token_ids)
        usage = service.stats().speculation
        assert (usage is None) == (not fields)
        service.close()
    assert all(text == texts[0] for text in texts)
