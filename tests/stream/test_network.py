"""When a network counts as poor, and what is sent together then."""

import asyncio
from collections.abc import AsyncGenerator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivace.stream.gather import gathered
from vivace.stream.network import NetworkConfig, NetworkHealth
from vivace.types.errors import ConfigError

CONFIG = NetworkConfig(poor_rtt_s=0.3, poor_wait_s=0.2, good_share=0.6, good_after_s=5.0, send_every_s=0.25)


def test_a_network_is_poor_by_round_trips_or_by_sends_that_wait() -> None:
    for rtt_s, wait_s, is_poor in ((0.02, 0.0, False), (None, 0.0, False), (0.31, 0.0, True), (0.02, 0.21, True)):
        health = NetworkHealth(CONFIG)
        assert health.note(0.0, rtt_s, wait_s) is is_poor
        assert health.is_poor is is_poor
        assert health.send_every_s == (0.25 if is_poor else 0.0)


def test_it_is_good_again_only_after_it_was_clearly_good_for_a_while() -> None:
    health = NetworkHealth(CONFIG)
    health.note(0.0, 0.02, 1.0)
    assert not health.note(1.0, 0.02, 0.15)  # better, and not clearly so
    assert not health.note(2.0, 0.02, 0.0)
    assert not health.note(6.9, 0.02, 0.0)
    assert health.note(7.0, 0.02, 0.0)
    assert not health.is_poor


@given(st.lists(st.tuples(st.floats(0.01, 3.0), st.floats(0.0, 1.0), st.floats(0.0, 1.0)), max_size=60))
def test_it_never_flaps(measured: list[tuple[float, float, float]]) -> None:
    health, now_s, became_poor_s = NetworkHealth(CONFIG), 0.0, float("-inf")
    for pause_s, rtt_s, wait_s in measured:
        now_s += pause_s
        if health.note(now_s, rtt_s, wait_s):
            if health.is_poor:
                became_poor_s = now_s
            else:
                assert now_s - became_poor_s >= CONFIG.good_after_s


@pytest.mark.parametrize(
    "wrong", [{"poor_rtt_s": 0.0}, {"poor_wait_s": -1.0}, {"good_share": 1.5}, {"send_every_s": 11.0}]
)
def test_settings_that_can_never_work_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        NetworkConfig(**wrong)


@given(
    st.lists(st.sampled_from([0.0, 0.0, 0.003, 0.02]), max_size=25),
    st.lists(st.sampled_from([0.0, 0.01]), min_size=1, max_size=4),
)
def test_nothing_is_lost_doubled_or_swapped_however_it_is_gathered(pauses_s: list[float], every_s: list[float]) -> None:
    async def items() -> AsyncGenerator[int, None]:
        for number, pause_s in enumerate(pauses_s):
            await asyncio.sleep(pause_s)
            yield number

    async def scenario() -> list[list[int]]:
        asked = iter(every_s * 30)
        return [batch async for batch in gathered(items(), lambda: next(asked))]

    batches = asyncio.run(scenario())
    assert all(batches)
    assert [item for batch in batches for item in batch] == list(range(len(pauses_s)))
    if not any(every_s):
        assert [len(batch) for batch in batches] == [1] * len(pauses_s)


def test_a_poor_network_gets_few_large_sends_and_the_first_and_the_last_wait_for_nothing() -> None:
    released = asyncio.Event()

    async def items() -> AsyncGenerator[int, None]:
        yield 0
        await released.wait()
        for number in range(1, 50):
            yield number

    async def scenario() -> None:
        batches = gathered(items(), lambda: 3600.0)
        assert await anext(batches) == [0]
        released.set()
        assert await asyncio.wait_for(anext(batches), 20) == list(range(1, 50))
        assert [batch async for batch in batches] == []

    asyncio.run(scenario())


def test_closing_it_in_the_middle_of_a_wait_closes_what_it_reads() -> None:
    closed = []

    async def items() -> AsyncGenerator[int, None]:
        try:
            yield 0
            yield 1
            await asyncio.Event().wait()
        finally:
            closed.append(True)

    async def scenario() -> None:
        batches = gathered(items(), lambda: 3600.0)
        await anext(batches)
        waiting = asyncio.ensure_future(anext(batches))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await batches.aclose()

    asyncio.run(scenario())
    assert closed == [True]
