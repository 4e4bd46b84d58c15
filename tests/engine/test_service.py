"""From text to text, in threads and in event loops; a reader that leaves ends its request."""

import asyncio
import gc
import threading
from contextlib import aclosing

import pytest

from engine.speaking_executor import PROMPT, SpeakingExecutor, make_service
from vivace.engine.service import ModelService
from vivace.types.answer import Usage
from vivace.types.errors import ContextLengthError, EngineError, OverloadedError, RequestError
from vivace.types.request import ChatMessage
from vivace.types.step import ForwardBatch

PATIENCE_S = 60


class Gate:
    """Holds every step until it is opened."""

    def __init__(self) -> None:
        self.is_waiting = threading.Event()
        self._permits = threading.Semaphore(0)

    def __call__(self, batch: ForwardBatch) -> None:
        self.is_waiting.set()
        assert self._permits.acquire(timeout=PATIENCE_S)

    def let(self, count: int) -> None:
        self._permits.release(count)


def wait_until_idle(service: ModelService) -> None:
    """Wait for the engine to have handled every message: it answers one more request after them."""
    service.complete(service.admit(PROMPT, {"max_tokens": 1, "temperature": 0}))


def test_an_answer_is_complete_with_usage_and_timings() -> None:
    service, _ = make_service("hello world")
    answer = service.complete(service.admit(PROMPT, {"temperature": 0}))
    num_tokens = len(service.encode("hello world")) + 1
    assert str(answer) == "hello world"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage == Usage(prompt_tokens=4, completion_tokens=num_tokens)
    assert set(answer.timings_s) == {"queued", "prefill", "decode"}
    service.close()


def test_pieces_add_up_to_the_answer() -> None:
    service, _ = make_service("你好 hello")
    chunks = list(service.iterate(service.admit(PROMPT, {"temperature": 0, "max_tokens": 3})))
    whole = service.complete(service.admit(PROMPT, {"temperature": 0, "max_tokens": 3}))
    assert "".join(chunk.text for chunk in chunks) == whole.text
    assert chunks[-1].usage == whole.usage
    assert chunks[-1].finish_reason == "length"
    service.close()


def test_a_stop_string_ends_the_request_in_the_engine() -> None:
    service, _ = make_service("aaaaa!" + "b" * 100, context_length=120)
    answer = service.complete(service.admit(PROMPT, {"temperature": 0, "stop": "!"}))
    assert answer.text == "aaaaa"
    assert answer.usage.completion_tokens == 6
    wait_until_idle(service)
    assert service.stats().held_blocks == 0
    service.close()


def test_several_answers_are_computed_together() -> None:
    gate = Gate()
    service, executor = make_service("hello", gate)
    requests = [service.admit(PROMPT, {"temperature": 0, "n": 1 + index % 2}) for index in range(5)]
    gate.let(1000)
    answers = service.complete_all(requests)
    assert [len(answer.choices) for answer in answers] == [1, 2, 1, 2, 1]
    assert {choice.text for answer in answers for choice in answer.choices} == {"hello"}
    assert executor.is_closed is False
    service.close()
    assert executor.is_closed


def test_a_reader_that_stops_reading_cancels_its_request() -> None:
    service, _ = make_service([100], context_length=120)
    chunks = service.iterate(service.admit(PROMPT, {"temperature": 0}))
    next(chunks)
    chunks.close()
    wait_until_idle(service)
    assert service.stats().held_blocks == 0
    service.close()


def test_a_cancel_by_id_ends_the_answer_with_its_text_so_far() -> None:
    gate = Gate()
    service, _ = make_service([100], gate, context_length=120)
    request = service.admit(PROMPT, {"temperature": 0}, request_id="mine")
    gate.let(3)
    chunks = service.iterate(request)
    seen = [next(chunks) for _ in range(3)]
    service.cancel("mine")
    service.cancel("unknown")
    gate.let(100)
    seen += chunks
    assert seen[-1].finish_reason == "cancelled"
    assert len(seen) < 10
    service.close()


def test_a_failure_reaches_every_kind_of_reader() -> None:
    def fail(batch: ForwardBatch) -> None:
        raise RuntimeError("no memory left")

    service, _ = make_service("hello", fail)
    request = service.admit(PROMPT, {})
    with pytest.raises(EngineError, match="no memory left"):
        service.complete(request)
    with pytest.raises(EngineError, match="no memory left"):
        list(service.iterate(request))
    with pytest.raises(EngineError, match="no memory left"):
        asyncio.run(service.acomplete(request))
    assert not service.ready
    service.close()


def test_one_failing_request_ends_the_others_of_its_group() -> None:
    service, _ = make_service([100], context_length=120)
    fine = service.admit(PROMPT, {"temperature": 0})
    twin = service.admit(PROMPT, {"temperature": 0}, request_id=fine.request_id)
    with pytest.raises(RequestError, match="in work"):
        service.complete_all([fine, twin])
    wait_until_idle(service)
    assert service.stats().held_blocks == 0
    service.close()


def test_an_event_loop_streams_many_answers_at_once() -> None:
    service, _ = make_service("hello world 你好")

    async def read(n: int) -> list[str]:
        texts = [""] * n
        async for chunk in service.stream(service.admit(PROMPT, {"temperature": 0, "n": n})):
            texts[chunk.choice] += chunk.text
        return texts

    async def read_all() -> list[list[str]]:
        return await asyncio.gather(*(read(1 + index % 3) for index in range(12)))

    assert {text for texts in asyncio.run(read_all()) for text in texts} == {"hello world 你好"}
    service.close()


def test_closing_an_asynchronous_reader_early_cancels_its_request() -> None:
    service, _ = make_service([100], context_length=120)

    async def read_one() -> None:
        async with aclosing(service.stream(service.admit(PROMPT, {"temperature": 0}))) as chunks:
            async for _ in chunks:
                return

    asyncio.run(read_one())
    wait_until_idle(service)
    assert service.stats().held_blocks == 0
    service.close()


def test_cancelling_a_task_cancels_its_request() -> None:
    gate = Gate()
    service, _ = make_service([100], gate, context_length=120)

    async def cancel_one() -> None:
        task = asyncio.create_task(service.acomplete(service.admit(PROMPT, {"temperature": 0})))
        await asyncio.to_thread(gate.is_waiting.wait, PATIENCE_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel_one())
    gate.let(1000)
    wait_until_idle(service)
    assert service.stats().held_blocks == 0
    service.close()


def test_a_request_does_not_begin_before_it_is_read() -> None:
    service, _ = make_service("hello")
    service.iterate(service.admit(PROMPT, {}))
    assert service.stats().num_requests == 0
    service.close()


def test_a_closed_service_refuses() -> None:
    service, _ = make_service("hello")
    assert service.ready
    service.close()
    service.close()
    assert not service.ready
    with pytest.raises(OverloadedError, match="closed"):
        service.complete(service.admit(PROMPT, {}))


def test_a_forgotten_service_frees_its_executor() -> None:
    def make() -> SpeakingExecutor:
        service, executor = make_service("hello")
        service.complete(service.admit(PROMPT, {"temperature": 0}))
        return executor

    executor = make()
    gc.collect()
    assert executor.is_closed


def test_chat_goes_through_the_template() -> None:
    service, _ = make_service("hello")
    ids = service.encode_chat([ChatMessage("user", "hello")])
    assert service.tokenizer.decode(ids, skip_special=False).startswith("<|im_start|>user\nhello<|im_end|>")
    with pytest.raises(RequestError):
        service.encode_chat([])
    service.close()


def test_a_chat_ends_at_the_templates_own_stop_strings_and_a_text_does_not() -> None:
    service, _ = make_service("hello")
    service._template.stop_strings = ("\nUser:",)
    chat = service.admit(PROMPT, {"stop": "x"}, chat=True)
    raw = service.admit(PROMPT, {"stop": "x"})
    assert (chat.stopping.stop, chat.continues_text) == (("x", "\nUser:"), False)
    assert (raw.stopping.stop, raw.continues_text) == (("x",), True)
    service.close()


def test_a_prompt_longer_than_the_context_is_refused_before_it_is_queued() -> None:
    service, _ = make_service("hello", context_length=20)
    with pytest.raises(ContextLengthError, match=r"25 tokens.*20"):
        service.admit([5] * 25, {})
    service.close()


def test_a_long_chat_is_refused_or_loses_turns_as_asked_and_tells_how_much() -> None:
    service, _ = make_service("hello", context_length=200)
    messages = [ChatMessage(("user", "assistant")[index % 2], f"turn {index} " + "word " * 8) for index in range(21)]
    with pytest.raises(ContextLengthError):
        service.admit_chat(messages, {"max_tokens": 4})
    request = service.admit_chat(messages, {"max_tokens": 4, "long_chat": "truncate", "temperature": 0})
    said = service.tokenizer.decode(request.prompt_ids)
    assert "turn 0 " in said and "turn 20 " in said and "turn 10 " not in said
    assert len(request.prompt_ids) + request.dropped_tokens == len(service.encode_chat(messages))
    assert service.complete(request).usage.dropped_tokens == request.dropped_tokens
    with pytest.raises(RequestError, match="reject, truncate"):
        service.admit_chat(messages, {"long_chat": "shrink"})
    service.close()


def test_a_waiting_request_is_told_where_it_is_without_stopping_the_engine() -> None:
    gate = Gate()

    async def scenario() -> list[tuple[int, int] | None]:
        service, _ = make_service("Hello.", gate)
        try:
            request = service.admit(PROMPT, {"max_tokens": 2, "temperature": 0})
            chunks = service.stream(request)
            first = asyncio.ensure_future(anext(chunks))
            await asyncio.to_thread(gate.is_waiting.wait, PATIENCE_S)
            asked = asyncio.ensure_future(service.place(request.request_id))
            await asyncio.sleep(0)  # the question is on its way
            gate.let(10)
            place = await asked
            await first
            async with aclosing(chunks):
                async for _ in chunks:
                    pass
            ended = await service.place(request.request_id)
        finally:
            service.close()
        closed = await service.place(request.request_id)
        return [place and (place.position, place.num_prompt) for place in (place, ended, closed)]

    assert asyncio.run(scenario()) == [(0, len(PROMPT)), None, None]


def test_an_event_loop_that_stands_still_does_not_hold_the_engine() -> None:
    text = "the engine goes on, whoever detokenises, formats or sends"
    is_drawn = threading.Event()

    def note(batch: ForwardBatch) -> None:
        if int(max(batch.positions)) >= len(PROMPT) + len(service.tokenizer.encode(text, add_special=False)) - 1:
            is_drawn.set()

    service, _ = make_service(text, note)

    async def scenario() -> str:
        stream = service.stream(service.admit(PROMPT, {"temperature": 0}))
        first = await anext(stream)
        assert is_drawn.wait(PATIENCE_S), "this blocks the event loop until the engine has drawn the last token"
        return first.text + "".join([chunk.text async for chunk in stream])

    try:
        assert asyncio.run(scenario()) == text
    finally:
        service.close()
