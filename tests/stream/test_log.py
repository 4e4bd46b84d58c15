"""The numbered log: replay, follow, bounds, one end."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivace.stream.errors import OffsetLostError
from vivace.stream.lifecycle import Lifecycle, StreamStatus, status_of
from vivace.stream.log import EVENT_OVERHEAD_BYTES, READ_AT_ONCE, LogEvent, NumberedLog
from vivace.stream.registry import fair_share
from vivace.types.errors import EngineError, RequestError

TERMINAL = [status for status in StreamStatus if status is not StreamStatus.RUNNING]


async def read_all(log: NumberedLog, starting_after: int = 0, most: int | None = None) -> list[LogEvent]:
    events = []
    async for event in log.follow(starting_after):
        assert event is not None
        events.append(event)
        if len(events) == most:
            break
    return events


def test_a_reader_that_comes_back_anywhere_loses_and_doubles_nothing() -> None:
    @given(st.lists(st.binary(max_size=5), max_size=20), st.integers(0, 20), st.integers(0, 20))
    def check(payloads: list[bytes], cut: int, written_before: int) -> None:
        async def scenario() -> None:
            log = NumberedLog(10**6)
            early, late = payloads[:written_before], payloads[written_before:]
            for payload in early:
                log.append(payload)
            first = asyncio.ensure_future(read_all(log, 0, most=max(1, min(cut, len(payloads)))))
            whole = asyncio.ensure_future(read_all(log))
            for payload in late:
                await asyncio.sleep(0)
                log.append(payload)
            log.end(StreamStatus.COMPLETED, b"end")
            head = await first
            rest = await read_all(log, head[-1].number)
            assert [event.payload for event in head + rest] == [*payloads, b"end"]
            assert [event.number for event in await whole] == list(range(1, len(payloads) + 2))

        asyncio.run(scenario())

    check()


@given(st.lists(st.integers(0, 300), min_size=1, max_size=40), st.integers(1, 2000))
def test_memory_stays_under_the_bound_and_what_is_held_is_the_newest(sizes: list[int], max_bytes: int) -> None:
    log = NumberedLog(max_bytes)
    for size in sizes:
        log.append(bytes(size))
        assert log.num_bytes <= max_bytes or log.first_number == log.last_number
    held = log.after(log.first_number - 1)
    assert [event.number for event in held] == list(range(log.first_number, len(sizes) + 1))
    assert sum(len(event.payload) + EVENT_OVERHEAD_BYTES for event in held) == log.num_bytes


def test_a_reader_behind_the_oldest_event_is_told_so() -> None:
    log = NumberedLog(EVENT_OVERHEAD_BYTES + 10)
    for _ in range(3):
        log.append(b"123456789")
    assert [event.number for event in log.after(2)] == [3]
    with pytest.raises(OffsetLostError, match="oldest one is 3") as lost:
        log.after(1)
    assert (lost.value.code, lost.value.http_status) == ("offset_lost", 410)


@pytest.mark.parametrize("number", [-1, 2, 10**30])
def test_a_number_that_was_never_written_is_refused(number: int) -> None:
    log = NumberedLog(1000)
    log.append(b"x")
    with pytest.raises(RequestError, match="events 1 to 1"):
        log.after(number)


def test_a_slow_reader_that_is_overtaken_is_told_and_not_skipped_ahead() -> None:
    async def scenario() -> None:
        log = NumberedLog(EVENT_OVERHEAD_BYTES * 3)
        log.append(b"a")
        events = log.follow()
        first = await anext(events)
        assert first is not None and first.number == 1
        for _ in range(5):
            log.append(b"b")
        with pytest.raises(OffsetLostError):
            await anext(events)

    asyncio.run(scenario())


def test_an_idle_log_gives_a_sign_of_life_and_still_every_event() -> None:
    async def scenario() -> None:
        log = NumberedLog(1000)
        events = log.follow(idle_s=0.001)
        assert await anext(events) is None
        log.append(b"x")
        assert await anext(events) == LogEvent(1, "", b"x")
        assert await anext(events) is None
        log.end(StreamStatus.COMPLETED, b"")
        assert [event async for event in events] == [LogEvent(2, "end", b"")]

    asyncio.run(scenario())


def test_a_reader_that_stands_still_keeps_little_alive_and_is_told_what_it_missed() -> None:
    async def scenario() -> None:
        log = NumberedLog(10**9)
        for _ in range(1000):
            log.append(b"x" * 1000)
        events = log.follow()
        assert (await anext(events)) is not None
        log.shrink(10 * (1000 + EVENT_OVERHEAD_BYTES))
        assert (log.first_number, log.last_number) == (991, 1000)
        log.append(b"later")
        assert log.first_number == 991, "the bound was for once"
        numbers = [1]
        with pytest.raises(OffsetLostError, match="the oldest one is 991"):
            async for event in events:
                assert event is not None
                numbers.append(event.number)
        assert numbers == list(range(1, READ_AT_ONCE + 1))

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("sizes", "total", "share"),
    [([], 10, 0), ([5, 1], 10, 5), ([9, 1], 10, 9), ([9, 9, 1], 10, 4), ([7, 7, 7], 10, 3), ([100, 3, 5], 20, 12)],
)
def test_room_is_shared_fairly(sizes: list[int], total: int, share: int) -> None:
    assert fair_share(sizes, total) == share
    assert sum(min(size, share) for size in sizes) <= total


@pytest.mark.parametrize("first", TERMINAL)
@pytest.mark.parametrize("second", list(StreamStatus))
def test_a_log_ends_once(first: StreamStatus, second: StreamStatus) -> None:
    log = NumberedLog(1000)
    log.end(first, b"")
    with pytest.raises(EngineError):
        log.end(second, b"")
    assert (log.status, log.last_number) == (first, 1)


def test_running_is_no_end() -> None:
    with pytest.raises(EngineError):
        Lifecycle().end(StreamStatus.RUNNING)


def test_the_least_complete_choice_decides() -> None:
    assert status_of({"stop"}) is StreamStatus.COMPLETED
    assert status_of({"stop", "length"}) is StreamStatus.INCOMPLETE
    assert status_of({"stop", "content_filter", "cancelled"}) is StreamStatus.CANCELLED
    assert status_of({"timeout"}) is StreamStatus.INCOMPLETE
    assert status_of(set()) is StreamStatus.FAILED
