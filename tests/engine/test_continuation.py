"""An answer that goes on from tokens it has says what it would have said, and does not read its prompt again."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.fake_executor import FakeExecutor
from engine.harness import GREEDY, finish_of, make_request, run_to_end, small_config, tokens_alone
from engine.speaking_executor import PROMPT, make_service
from vivace.engine.core import Engine
from vivace.types.errors import RequestError
from vivace.types.events import EngineEvent, TokenEvent
from vivace.types.request import Continuation, GenerationRequest, SamplingParams

SEEDED = SamplingParams(temperature=1.0, seed=11, presence_penalty=0.5, repetition_penalty=1.2)


def going_on(request: GenerationRequest, kept: list[int], **more: object) -> GenerationRequest:
    fields = Continuation(answer_ids=tuple(kept), **more)  # type: ignore[arg-type]
    return replace(request, n=1, request_id="more", continuation=fields)


def more_tokens(events: list[EngineEvent], num_kept: int) -> list[int]:
    told = [event for event in events if isinstance(event, TokenEvent) and event.request_id == "more"]
    assert [event.index for event in told] == list(range(num_kept, num_kept + len(told)))
    return [event.token_id for event in told]


@given(
    sampling=st.sampled_from([GREEDY, SEEDED]),
    num_prompt=st.integers(1, 40),
    num_kept=st.integers(0, 23),
    choice=st.integers(0, 2),
    is_warm=st.booleans(),
)
def test_the_rest_of_an_answer_is_what_it_would_have_been(
    sampling: SamplingParams, num_prompt: int, num_kept: int, choice: int, is_warm: bool
) -> None:
    request = make_request(prompt=[1 + index % 7 for index in range(num_prompt)], max_tokens=24, sampling=sampling, n=3)
    whole = tokens_alone(request)[choice]
    kept = whole[:num_kept]
    engine = Engine(FakeExecutor(), small_config())
    if is_warm:
        engine.add(request)
        run_to_end(engine)
    engine.add(going_on(request, kept, choice=choice))
    events = run_to_end(engine)
    assert kept + more_tokens(events, num_kept) == whole
    assert finish_of(events, "more").num_generated == 24


def test_neither_the_prompt_nor_the_kept_answer_is_read_again() -> None:
    request = make_request(prompt=range(1, 31), max_tokens=64)
    whole = tokens_alone(request)[0]
    executor = FakeExecutor()
    engine = Engine(executor, small_config())
    engine.add(request)
    told: list[EngineEvent] = []
    while len(told) < 40:
        told += engine.step()
    engine.cancel("r")
    num_rows = sum(executor.batch_sizes)
    engine.add(going_on(request, whole[:34]))  # 64 tokens are known: four blocks, of which the last is computed again
    events = run_to_end(engine)
    assert whole[:34] + more_tokens(events, 34) == whole
    assert finish_of(events, "more").num_cached_tokens == 48
    assert sum(executor.batch_sizes) - num_rows == 16 + 64 - 34 - 1


def test_another_attempt_draws_anew_and_keeps_away_from_what_is_banned() -> None:
    request = make_request(max_tokens=24, sampling=SEEDED)
    whole = tokens_alone(request)[0]
    kept = whole[:5]
    engine = Engine(FakeExecutor(), small_config())
    engine.add(going_on(request, kept, attempt=1))
    assert more_tokens(run_to_end(engine), 5) != whole[5:]
    banned = (whole[5],)
    greedy = replace(request, sampling=GREEDY)
    natural = tokens_alone(greedy)[0]
    engine.add(going_on(greedy, natural[:5], attempt=1, banned_first=(natural[5],)))
    assert more_tokens(run_to_end(engine), 5)[0] != natural[5]
    engine.add(going_on(request, kept, banned_first=banned))
    assert more_tokens(run_to_end(engine), 5)[0] not in banned


def test_an_answer_that_is_full_cannot_go_on() -> None:
    engine = Engine(FakeExecutor(), small_config())
    with pytest.raises(RequestError, match="all of its 8 tokens"):
        engine.add(going_on(make_request(max_tokens=8), [1] * 8))


@pytest.mark.parametrize("parameters", [{}, {"max_tokens": 9}, {"stop": "wor"}])
def test_a_continued_text_is_told_from_its_beginning(parameters: dict[str, object]) -> None:
    service, _ = make_service("你好 hello world 🎉")
    request = service.admit(PROMPT, {"temperature": 0, **parameters})
    whole = list(service.iterate(request))
    ids = [token_id for chunk in whole for token_id in chunk.token_ids]
    for num_kept in range(len(ids) + 1):
        again = list(service.iterate(going_on(request, ids[:num_kept])))
        assert [chunk.text for chunk in again] == [chunk.text for chunk in whole], num_kept
        assert again[-1].finish_reason == whole[-1].finish_reason
        assert (again[-1].usage is None) == (whole[-1].usage is None)
    service.close()
