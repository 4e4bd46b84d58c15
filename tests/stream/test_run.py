"""A run: one writer, readers that come and go, one end, and what a disconnect means."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import msgspec
import pytest

from factories.scripted_stream import Script, payloads, scripted_run
from vivace.stream.errors import UnknownStreamError
from vivace.stream.lifecycle import StreamStatus
from vivace.stream.options import CANCEL, KEEP, DisconnectPolicy, RunOptions, parse_disconnect_policy
from vivace.stream.registry import RegistryLimits, StreamRegistry, new_stream_id, owner_of
from vivace.types.errors import EngineError, OverloadedError, RequestError

DEADLINE_S = 30


def run_async(scenario: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(scenario, DEADLINE_S)

    asyncio.run(bounded())


def test_an_answer_is_written_once_and_read_by_many() -> None:
    async def scenario() -> None:
        run = scripted_run(Script(["a", "b", "c"]))
        run.start()
        whole = ["<open>", "a", "b", "c", "<stop>", "<close>", "end"]
        assert await asyncio.gather(payloads(run), payloads(run)) == [whole, whole]
        assert await payloads(run, 3) == whole[3:]
        assert run.log.status is StreamStatus.COMPLETED
        end = msgspec.json.decode(run.log.after(6)[0].payload)
        assert end["usage"] == {"prompt_tokens": 1, "completion_tokens": 3}

    run_async(scenario())


def test_the_last_reader_to_leave_ends_the_work_under_the_policy_cancel() -> None:
    async def scenario() -> None:
        script = Script(["a", "b"], free=False)
        run = scripted_run(script, on_disconnect=CANCEL)
        run.start()
        first, second = run.read(), run.read()
        script.permits.release()
        for reader in (first, second):
            assert await anext(reader) is not None
        await first.aclose()
        assert not script.stopped.is_set()
        await second.aclose()
        assert script.stopped.is_set()
        await run.join()
        assert await payloads(run) == ["<open>", "a", "<cancelled>", "<close>", "end"]
        assert run.log.status is StreamStatus.CANCELLED

    run_async(scenario())


@pytest.mark.parametrize("policy", [KEEP, DisconnectPolicy(100.0)])
def test_a_reader_that_leaves_does_not_end_work_that_is_kept(policy: DisconnectPolicy) -> None:
    async def scenario() -> None:
        script = Script(["a", "b"], free=False)
        run = scripted_run(script, on_disconnect=policy)
        run.start()
        reader = run.read()
        script.permits.release()
        event = await anext(reader)
        await reader.aclose()
        for _ in range(2):
            script.permits.release()
        assert event is not None
        assert await payloads(run, event.number) == ["a", "b", "<stop>", "<close>", "end"]

    run_async(scenario())


def test_work_is_kept_only_so_long() -> None:
    async def scenario() -> None:
        script = Script(["a"], free=False)
        run = scripted_run(script, on_disconnect=DisconnectPolicy(0.01))
        run.start()
        reader = run.read()
        waiting = asyncio.ensure_future(anext(reader))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await reader.aclose()
        await run.join()
        assert run.log.status is StreamStatus.CANCELLED

    run_async(scenario())


def test_the_stop_verb_ends_work_whoever_reads() -> None:
    async def scenario() -> None:
        script = Script(["a"] * 9, free=False)
        run = scripted_run(script, on_disconnect=KEEP)
        run.start()
        script.permits.release()
        reading = asyncio.ensure_future(payloads(run))
        await asyncio.sleep(0)
        run.cancel()
        run.cancel()
        assert (await reading)[-3:] == ["<cancelled>", "<close>", "end"]
        run.cancel()
        assert run.log.status is StreamStatus.CANCELLED

    run_async(scenario())


@pytest.mark.parametrize(
    ("error", "code"), [(EngineError("broke"), "engine_error"), (ValueError("a mistake"), "engine_error")]
)
def test_a_failure_is_told_in_band_and_ends_the_stream(error: Exception, code: str) -> None:
    async def scenario() -> None:
        run = scripted_run(Script(["a", error]))
        run.start()
        assert await payloads(run) == ["<open>", "a", f"<{code}>", "end"]
        assert run.log.status is StreamStatus.FAILED

    run_async(scenario())


def test_a_failure_before_the_first_piece_is_left_to_a_plain_response() -> None:
    async def scenario() -> None:
        run = scripted_run(Script([OverloadedError("full")]))
        run.start()
        assert await payloads(run) == ["end"]
        assert isinstance(run.failure, OverloadedError)

    run_async(scenario())


def test_an_answer_that_a_shutdown_cuts_has_failed() -> None:
    async def scenario() -> None:
        script = Script(["a", "b"], free=False)
        run = scripted_run(script)
        run.start()
        script.permits.release()
        reading = asyncio.ensure_future(payloads(run))
        await asyncio.sleep(0)
        script.stop()  # not through the run: the engine was closed
        assert (await reading)[-2:] == ["<overloaded>", "end"]
        assert run.log.status is StreamStatus.FAILED

    run_async(scenario())


def test_a_deadline_ends_an_answer_with_what_there_is() -> None:
    async def scenario() -> None:
        run = scripted_run(Script(["a"] * 9, free=False), options=RunOptions(KEEP, deadline_s=0.01))
        run.start()
        assert await payloads(run) == ["<open>", "<timeout>", "<close>", "end"]
        assert run.log.status is StreamStatus.INCOMPLETE

    run_async(scenario())


@pytest.mark.parametrize("events", [False, True])
def test_a_soft_timeout_warns_those_who_asked(events: bool) -> None:
    async def scenario() -> None:
        script = Script(["a"], free=False)
        run = scripted_run(script, options=RunOptions(KEEP, events=events, soft_timeout_s=0.01, deadline_s=0.1))
        run.start()
        assert await payloads(run) == ["slow"] * events + ["<open>", "<timeout>", "<close>", "end"]

    run_async(scenario())


@pytest.mark.parametrize(("value", "keep_s"), [("cancel", 0.0), ("keep", None), (2.5, 2.5), (0, 0.0)])
def test_disconnect_policies_read(value: str | float, keep_s: float | None) -> None:
    assert parse_disconnect_policy(value).keep_s == keep_s


@pytest.mark.parametrize("value", ["stay", -1, 1e9, float("nan"), ""])
def test_disconnect_policies_refused(value: str | float) -> None:
    with pytest.raises(RequestError, match="on_disconnect"):
        parse_disconnect_policy(value)


def test_a_stream_is_found_by_its_owner_alone() -> None:
    async def scenario() -> None:
        registry = StreamRegistry()
        run = scripted_run(Script([]), owner=owner_of("key"), stream_id=new_stream_id())
        registry.add(run)
        assert registry.find(run.stream_id, owner_of("key")) is run
        for stream_id, owner in ((run.stream_id, owner_of("other")), ("stream-x", owner_of("key"))):
            with pytest.raises(UnknownStreamError) as unknown:
                registry.find(stream_id, owner)
            assert unknown.value.http_status == 404
        await registry.close()

    run_async(scenario())


def test_ids_cannot_be_guessed() -> None:
    ids = {new_stream_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert min(map(len, ids)) >= len("stream-") + 32


def test_the_reaper_gives_every_run_an_end_and_forgets_old_ones() -> None:
    async def scenario() -> None:
        now = [0]
        forgotten: list[str] = []
        limits = RegistryLimits(retain_s=10, max_run_s=100)
        registry = StreamRegistry(limits, release=forgotten.append, clock=lambda: now[0])
        script = Script(["a"], free=False)
        run = scripted_run(script, on_disconnect=KEEP)
        registry.add(run)
        run.start()
        await asyncio.sleep(0)
        now[0] = 99 * 10**9
        registry.reap()
        assert not run.log.has_ended
        now[0] = 101 * 10**9
        registry.reap()
        await run.join()
        assert run.log.status is StreamStatus.INCOMPLETE
        registry.reap()
        assert len(registry) == 1
        now[0] = 112 * 10**9
        registry.reap()
        assert (len(registry), forgotten) == (0, ["stream-1"])
        await registry.close()

    run_async(scenario())


def test_a_run_whose_work_does_not_end_when_told_is_torn_down() -> None:
    async def scenario() -> None:
        now = [0]
        registry = StreamRegistry(RegistryLimits(max_run_s=1), clock=lambda: now[0])
        script = Script(["a"], free=False)
        script.stop = lambda: None  # type: ignore[method-assign]
        run = scripted_run(script, on_disconnect=KEEP)
        registry.add(run)
        run.start()
        await asyncio.sleep(0)
        for now[0] in (2 * 10**9, 3 * 10**9, 13 * 10**9):
            registry.reap()
        await run.join()
        assert run.log.status is StreamStatus.CANCELLED
        assert script.closed
        await registry.close()

    run_async(scenario())


def test_ended_streams_make_room_and_running_ones_do_not() -> None:
    async def scenario() -> None:
        registry = StreamRegistry(RegistryLimits(max_streams=2))
        runs = [scripted_run(Script([]), stream_id=f"stream-{number}") for number in range(4)]
        registry.add(runs[0])
        runs[0].start()
        await runs[0].join()
        for run in runs[1:3]:
            registry.add(run)
        assert len(registry) == 2
        with pytest.raises(OverloadedError):
            registry.add(runs[3])
        await registry.close()

    run_async(scenario())
