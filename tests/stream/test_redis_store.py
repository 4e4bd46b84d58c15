"""What the shared store gives back, what it refuses, and who may write a stream: against a real Redis."""

import asyncio
from collections.abc import Iterator
from itertools import chain
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factories.redis_server import needs_redis, redis_server
from vivace.stream.errors import StreamMovedError
from vivace.stream.journal import Progress, RunRecord
from vivace.stream.lifecycle import StreamStatus
from vivace.stream.log import LogEvent
from vivace.stream.open_store import open_store
from vivace.stream.redis_store import RedisStore
from vivace.stream.registry import RegistryLimits, new_stream_id
from vivace.stream.shared_store import LeaseNews, SharedStore, StoreConfig
from vivace.types.errors import ConfigError, MissingExtraError, OverloadedError, StorageError

pytestmark = needs_redis()
LONG_S = 100.0


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with redis_server() as (url, _):
        yield url


def store_at(url: str, **options: Any) -> RedisStore:
    return RedisStore(url, options.pop("lease_s", LONG_S), RegistryLimits(**options))


def record(stream_id: str = "", **fields: Any) -> RunRecord:
    return RunRecord(stream_id or new_stream_id(), "owner", "chat", b"{}", **fields)


def begun(url: str, **options: Any) -> tuple[RedisStore, str]:
    store, mine = store_at(url, **options), record()
    store.begin(mine)
    return store, mine.stream_id


def expire_lease(store: RedisStore, stream_id: str) -> None:
    """The server was silent for longer than its lease."""
    store._redis.zadd("vivace:leases", {stream_id: 0})


def event(number: int, payload: bytes = b"x", name: str = "") -> LogEvent:
    return LogEvent(number, name, payload, 0.25)


def numbers(store: RedisStore, stream_id: str) -> list[int]:
    saved = store.find(stream_id)
    assert saved is not None
    return [each.number for each in saved.events]


def test_everything_comes_back_on_another_server(url: str) -> None:
    mine, store, other = record(retain_s=400.0), store_at(url), store_at(url)
    assert isinstance(store, SharedStore)
    store.begin(mine)
    progress = {0: Progress(3, [7]), 1: Progress(0, [], "length", 2)}
    store.append(mine.stream_id, [event(1)], progress)
    progress[0].token_ids += [70000, 8]
    progress[1].token_ids += [9]
    store.append(mine.stream_id, [event(2, "你好".encode(), "slow"), event(3)], progress)
    saved = other.find(mine.stream_id)
    assert saved is not None
    assert (saved.record, saved.status) == (mine, StreamStatus.RUNNING)
    assert saved.events == (event(1), event(2, "你好".encode(), "slow"), event(3))
    assert saved.progress == progress
    store.end(mine.stream_id, [event(4, name="end")], progress, StreamStatus.CANCELLED)
    head = other.head(mine.stream_id)
    assert head is not None
    assert (head.record, head.status) == (mine, StreamStatus.CANCELLED)
    other.forget(mine.stream_id)
    assert (other.head(mine.stream_id), other.find(mine.stream_id)) == (None, None)


def test_a_stream_is_claimed_only_after_its_lease_and_only_once(url: str) -> None:
    store, stream_id = begun(url)
    first, second = store_at(url), store_at(url)
    assert not first.claim(stream_id)
    expire_lease(store, stream_id)
    assert stream_id in first.orphans(1000)
    assert [first.claim(stream_id), second.claim(stream_id)] == [True, False]
    assert stream_id not in first.orphans(1000)


def test_who_was_paused_and_comes_back_cannot_write_on(url: str) -> None:
    paused, stream_id = begun(url)
    paused.append(stream_id, [event(1)], {0: Progress(1, [5])})
    expire_lease(paused, stream_id)
    other = store_at(url)
    assert other.claim(stream_id)
    other.append(stream_id, [event(2, b"theirs")], {0: Progress(2, [5, 6], num_saved=1)})
    for write in (
        lambda: paused.append(stream_id, [event(3)], {0: Progress(3, [5, 6, 7], num_saved=2)}),
        lambda: paused.end(stream_id, [event(3, name="end")], {}, StreamStatus.COMPLETED),
    ):
        with pytest.raises(StreamMovedError):
            write()
    saved = other.find(stream_id)
    assert saved is not None
    assert (saved.status, [each.payload for each in saved.events]) == (StreamStatus.RUNNING, [b"x", b"theirs"])
    assert saved.progress[0].token_ids == [5, 6]


def test_a_heartbeat_keeps_a_lease_and_tells_what_others_want(url: str) -> None:
    store, stream_id = begun(url)
    expire_lease(store, stream_id)
    (news,) = store.beat([])
    assert news == LeaseNews(stream_id, is_ours=True, is_stop_wanted=False, is_read_elsewhere=False)
    other = store_at(url)
    assert not other.claim(stream_id)
    other.stop(stream_id)
    other.beat([stream_id])
    (news,) = store.beat([])
    assert (news.is_ours, news.is_stop_wanted, news.is_read_elsewhere) == (True, True, True)
    expire_lease(store, stream_id)
    assert other.claim(stream_id)
    assert [news.is_ours for news in store.beat([])] == [False]
    assert store.beat([]) == []


def test_a_write_that_is_said_twice_is_done_once(url: str) -> None:
    store, stream_id = begun(url)
    for _ in range(2):
        store.append(stream_id, [event(1), event(2)], {0: Progress(2, [5])})
    assert numbers(store, stream_id) == [1, 2]
    saved = store.find(stream_id)
    assert saved is not None
    assert saved.progress[0].token_ids == [5]


def test_events_after_a_gap_are_refused(url: str) -> None:
    store, stream_id = begun(url)
    with pytest.raises(StreamMovedError):
        store.append(stream_id, [event(2)], {})
    assert numbers(store, stream_id) == []


def test_a_log_holds_its_newest_bytes(url: str) -> None:
    store, stream_id = begun(url, max_log_bytes=1000)
    for number in range(1, 30):
        store.append(stream_id, [event(number, b"x" * 100)], {})
    assert numbers(store, stream_id) == [27, 28, 29]


def test_ended_streams_go_when_all_are_too_large_and_when_their_time_has_come(url: str) -> None:
    with redis_server() as (own_url, _):
        store = store_at(own_url, max_total_bytes=3000)
        ids = []
        for _ in range(4):
            mine = record()
            store.begin(mine)
            store.end(mine.stream_id, [event(1, b"x" * 800, "end")], {}, StreamStatus.COMPLETED)
            ids.append(mine.stream_id)
        store.beat([])
        assert [store.head(each) is not None for each in ids] == [False, False, True, True]
        store._redis.zadd("vivace:ended", {ids[2]: 1})
        store.beat([])
        assert [store.head(each) is not None for each in ids] == [False, False, False, True]
        assert store._redis.pttl(f"vivace:events:{ids[3]}") > 0  # goes by itself when no server is left
        store.forget(ids[3])
        assert store._redis.get("vivace:bytes") == b"0"
        assert set(store._redis.keys()) == {b"vivace:bytes"}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.binary(max_size=40), min_size=1, max_size=4), min_size=1, max_size=8), st.data())
def test_a_follower_reads_what_was_written_from_wherever_it_begins(
    url: str, batches: list[list[bytes]], data: st.DataObject
) -> None:
    store, stream_id = begun(url)
    written = [event(number, payload) for number, payload in enumerate(chain.from_iterable(batches), 1)]
    after = data.draw(st.integers(0, len(written) - 1))

    async def scenario() -> list[LogEvent]:
        reader = store_at(url)
        seen: list[LogEvent] = []

        async def write() -> None:
            place = 0
            for batch in batches:
                store.append(stream_id, written[place : place + len(batch)], {})
                place += len(batch)
                await asyncio.sleep(0)

        writing = asyncio.ensure_future(write())
        async for events in reader.follow(stream_id, after):
            seen += events
            if seen[-1].number == len(written):
                break
        await writing
        await reader._follow.aclose()
        reader.close()
        return seen

    assert asyncio.run(scenario()) == written[after:]
    store.close()


def test_a_stream_whose_store_is_gone_is_lost_and_new_ones_wait() -> None:
    with redis_server() as (url, process):
        store, stream_id = begun(url)
        process.kill()
        process.wait(30)
        with pytest.raises(StreamMovedError):
            store.append(stream_id, [event(1)], {})
        with pytest.raises(OverloadedError):
            store.begin(record())


def test_a_name_that_is_taken_is_refused(url: str) -> None:
    _, stream_id = begun(url)
    with pytest.raises(StorageError):
        store_at(url).begin(record(stream_id))


def test_what_can_never_work_is_said_in_one_line(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="does not answer") as refused:
        RedisStore("redis://:very-secret@127.0.0.1:1/0")
    assert "very-secret" not in str(refused.value)
    with pytest.raises(ConfigError, match="redis://HOST"):
        RedisStore("http://127.0.0.1")
    with pytest.raises(ConfigError, match="lease"):
        RedisStore(url, lease_s=0)
    with pytest.raises(ConfigError, match="one place"):
        open_store(StoreConfig(file=new_path(), url=url))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"vivace\[redis\]"):
        open_store(StoreConfig(url=url))


def new_path() -> Any:
    from pathlib import Path

    return Path("never-made.db")
