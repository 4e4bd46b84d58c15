"""Pacing that learns from its reader and never holds it up."""

import asyncio

import pytest

from factories.scripted_stream import Script, scripted_run
from vivace.stream.options import KEEP, RunOptions
from vivace.stream.reader import ReaderReport, StreamReader
from vivace.stream.reader_speed import AHEAD, FASTEST, SLOWEST, ReaderSpeed
from vivace.types.errors import RequestError


def read_steadily(pace: float, num_events: int = 60, behind: int = 2) -> ReaderSpeed:
    """A reader that needs `1 / pace` of the usual time, and is always `behind` events late."""
    speed, now_s = ReaderSpeed(), 0.0
    for number in range(1, num_events + 1):
        speed.note_shown(number, 0.5, now_s)
        if number > behind:
            speed.note_read(number - behind, now_s)
        now_s += 0.5 / pace
    return speed


@pytest.mark.parametrize("pace", [0.6, 1.0, 2.0, 5.0])
def test_the_speed_of_a_steady_reader_is_learnt(pace: float) -> None:
    assert read_steadily(pace).speed == pytest.approx(pace, rel=0.05)


@pytest.mark.parametrize("pace", [0.01, 100.0])
def test_the_speed_stays_within_bounds(pace: float) -> None:
    assert SLOWEST <= read_steadily(pace).speed <= FASTEST


def test_a_reader_that_has_read_all_is_given_more_than_was_seen() -> None:
    speed = ReaderSpeed()
    speed.note_shown(1, 1.0, 0.0)
    assert speed.note_read(1, 0.5)
    assert speed.speed == pytest.approx(2.0 * AHEAD)
    speed.note_shown(2, 1.0, 100.0)  # what it waited is not held against it
    speed.note_read(2, 101.0)
    assert speed.speed >= 2.0 * AHEAD


def test_reports_that_repeat_or_come_at_once_change_nothing() -> None:
    speed = ReaderSpeed()
    speed.note_shown(1, 1.0, 0.0)
    speed.note_shown(2, 1.0, 0.0)
    speed.note_read(1, 0.001)
    speed.note_read(1, 0.002)
    assert speed.speed == 1.0


async def patient_reader(pieces: list[str]) -> StreamReader:
    """A reader of an ended stream that would be kept waiting for hours."""
    run = scripted_run(Script(pieces), options=RunOptions(KEEP, pace="reader"))
    run.start()
    await run.join()
    reader = StreamReader(run)
    assert reader._pacer is not None
    reader._pacer.max_buffer_s = 1e9
    return reader


def test_a_report_of_having_read_all_ends_the_wait() -> None:
    async def scenario() -> list[str]:
        reader, shown = await patient_reader(["word " * 5000] * 4), []
        async for event in reader.events():
            assert event is not None
            shown.append(event.payload.decode())
            asyncio.get_running_loop().call_soon(reader.note, ReaderReport(event.number))
        return shown

    shown = asyncio.run(asyncio.wait_for(scenario(), 30))
    assert shown[1:5] == ["word " * 5000] * 4


def test_the_pace_can_be_changed_while_the_next_event_waits() -> None:
    async def scenario() -> int:
        reader = await patient_reader(["word " * 5000] * 3)
        with pytest.raises(RequestError, match="no pace"):
            reader.set_pace("slow")
        asyncio.get_running_loop().call_later(0.01, reader.set_pace, "off")
        return len([event async for event in reader.events()])

    assert asyncio.run(asyncio.wait_for(scenario(), 30)) == 7
