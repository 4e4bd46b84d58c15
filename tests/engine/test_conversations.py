"""Conversations are saved with their blocks, come back after a restart, and are their owner's alone."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine.fake_executor import FakeExecutor
from engine.harness import make_request, small_config
from vivace.cache.disk_tier import DiskTier
from vivace.cache.tiers import BlockTiers
from vivace.engine.conversations import Conversations, SessionRoom
from vivace.engine.core import Engine
from vivace.engine.loop import EngineLoop
from vivace.engine.session_store import SessionRoomError, SessionsOffError, SessionStore, UnknownSessionError
from vivace.engine.tiering import TierConfig, kv_fingerprint
from vivace.numerics.kv_formats import KV_LAYOUT
from vivace.types.errors import ConfigError, OverloadedError
from vivace.types.events import EngineEvent, FinishEvent
from vivace.types.request import ChatMessage, GenerationRequest, ServiceLevel

BYTES = FakeExecutor().bytes_per_block
HELLO = [ChatMessage("user", "x" * 70)]


def admit(messages: Sequence[ChatMessage], parameters: Mapping[str, object]) -> GenerationRequest:
    """A token is a character."""
    tokens = [ord(letter) % 31 for message in messages for letter in message.content]
    level = ServiceLevel(tenant=str(parameters.get("tenant", "")))
    return make_request("r", tokens, 6, service_level=level)


class World:
    """An engine with its tiers and its conversations."""

    def __init__(self, folder: Path, *, num_blocks: int = 40, max_blocks: int = 100, max_sessions: int = 9) -> None:
        executor = FakeExecutor(num_blocks)
        self.disk = DiskTier(folder, b"f" * 16, (BYTES,), 1000 * BYTES)
        self.store = SessionStore(self.disk.folder / "sessions", max_sessions)
        tiers = BlockTiers(executor, 0, self.disk, clock=lambda: 0)
        self.loop = EngineLoop(Engine(executor, small_config(), tiers=tiers))
        self.talks = Conversations(self.loop, admit, SessionRoom(self.store, self.disk, max_blocks))

    def ask(self, messages: Sequence[ChatMessage], **parameters: object) -> FinishEvent:
        from queue import SimpleQueue

        told: SimpleQueue[EngineEvent] = SimpleQueue()
        self.loop.submit(admit(messages, parameters), lambda events: [told.put(event) for event in events] and None)
        while not isinstance(event := told.get(), FinishEvent):
            pass
        return event


@contextmanager
def world(folder: Path, **sizes: int) -> Iterator[World]:
    made = World(folder, **sizes)
    try:
        yield made
    finally:
        made.loop.close()


def test_after_a_restart_the_history_is_not_read_again(tmp_path: Path) -> None:
    with world(tmp_path) as first:
        assert first.ask(HELLO).num_cached_tokens == 0
        saved = first.talks.save("anna", HELLO)
        assert (saved.num_tokens, saved.num_saved_tokens, len(first.disk)) == (70, 64, 4)
    with world(tmp_path) as second:
        back = second.talks.restore("anna", saved.session_id)
        assert back.messages == tuple(HELLO) and back.num_ready_tokens == 64
        longer = [*back.messages, ChatMessage("user", "more")]
        assert second.ask(longer).num_cached_tokens == 64
        stats = second.loop.stats().tiers
        assert stats is not None and stats.preload_hit_rate == 1


def test_only_the_owner_has_it_back_and_nobody_learns_that_it_is_there(tmp_path: Path) -> None:
    with world(tmp_path) as one:
        saved = one.talks.save("anna", HELLO)
        for owner, name in (("eve", saved.session_id), ("anna", "session-unknown"), ("anna", "../../etc/passwd")):
            with pytest.raises(UnknownSessionError) as failure:
                one.talks.restore(owner, name)
            assert str(failure.value) == str(UnknownSessionError())
            with pytest.raises(UnknownSessionError):
                one.talks.delete(owner, name)
            with pytest.raises(UnknownSessionError):
                one.talks.save(owner, HELLO, session_id=name)
            with pytest.raises(UnknownSessionError):
                one.talks.expect_session(owner, name)
        assert one.talks.restore("anna", saved.session_id).session_id == saved.session_id


def test_saving_again_continues_and_deleting_removes_the_files_that_nobody_else_needs(tmp_path: Path) -> None:
    with world(tmp_path) as one:
        one.ask(HELLO)
        first, second = one.talks.save("anna", HELLO), one.talks.save("bob", HELLO)
        longer = [*HELLO, ChatMessage("assistant", "y" * 60)]
        one.ask(longer)
        again = one.talks.save("anna", longer, session_id=first.session_id)
        assert again.session_id == first.session_id and again.num_saved_tokens == 128
        assert len(one.disk) == 8, "what two share is there once"
        one.talks.delete("anna", first.session_id)
        assert len(one.disk) == 4
        one.talks.delete("bob", second.session_id)
        assert len(one.disk) == one.disk.num_pinned == 0
        with pytest.raises(UnknownSessionError):
            one.talks.restore("bob", second.session_id)
        assert list(one.disk.folder.rglob("*.*")) == []


def test_tenants_share_no_blocks(tmp_path: Path) -> None:
    with world(tmp_path) as one:
        one.ask(HELLO, tenant="a")
        assert one.talks.save("anna", HELLO, {"tenant": "b"}).num_saved_tokens == 0
        assert one.talks.save("anna", HELLO, {"tenant": "a"}).num_saved_tokens == 64


def test_there_is_a_limit_in_number_and_in_blocks(tmp_path: Path) -> None:
    with world(tmp_path, max_sessions=1, max_blocks=4) as one:
        one.ask(HELLO)
        saved = one.talks.save("anna", HELLO)
        with pytest.raises(SessionRoomError, match="limit"):
            one.talks.save("anna", HELLO)
        longer = [*HELLO, ChatMessage("assistant", "y" * 60)]
        one.ask(longer)
        with pytest.raises(SessionRoomError, match="room"):
            one.talks.save("anna", longer, session_id=saved.session_id)
        assert one.disk.num_pinned == 4
        assert one.talks.restore("anna", saved.session_id).messages == tuple(HELLO)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 0}', '{"version": 1}', "\x00\xff"])
def test_a_damaged_record_is_no_session(tmp_path: Path, text: str) -> None:
    with world(tmp_path) as one:
        saved = one.talks.save("anna", HELLO)
        (path,) = (one.disk.folder / "sessions").iterdir()
        path.write_text(text, encoding="utf-8")
        with pytest.raises(UnknownSessionError):
            one.talks.restore("anna", saved.session_id)
        assert one.store.records() == []


def test_lost_blocks_cost_a_prefill_and_nothing_else(tmp_path: Path) -> None:
    with world(tmp_path) as one:
        one.ask(HELLO)
        saved = one.talks.save("anna", HELLO)
    for path in one.disk.folder.glob("*.kv"):
        path.write_bytes(b"")
    with world(tmp_path) as two:
        back = two.talks.restore("anna", saved.session_id)
        assert back.messages == tuple(HELLO) and back.num_ready_tokens == 0


def test_a_hint_brings_blocks_back_before_they_are_asked_for(tmp_path: Path) -> None:
    with world(tmp_path, num_blocks=24) as one:
        one.ask(HELLO)
        for letter in "abcdefgh":
            one.ask([ChatMessage("user", letter * 70)])
        one.disk.flush()
        assert one.talks.expect(HELLO).result() == 4
        assert one.ask(HELLO).num_cached_tokens == 64


def test_without_a_folder_conversations_are_refused_and_hints_do_no_harm() -> None:
    loop = EngineLoop(Engine(FakeExecutor(), small_config()))
    talks = Conversations(loop, admit, None)
    assert talks.expect(HELLO).result() == 0
    for call in (talks.restore, talks.delete, talks.expect_session):
        with pytest.raises(SessionsOffError, match="--kv-folder"):
            call("anna", "x")
    with pytest.raises(SessionsOffError):
        talks.save("anna", HELLO)
    loop.close()
    assert isinstance(talks.expect(HELLO).exception(), OverloadedError)


def test_the_fingerprint_knows_the_model_its_format_its_settings_and_the_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "m.gguf"
    model.write_bytes(bytes(300_000))
    executor = FakeExecutor()
    one = kv_fingerprint(model, executor, "f16", 12)
    assert one == kv_fingerprint(model, executor, "f16", 12) and len(one) == 16
    assert one != kv_fingerprint(model, executor, "int8", 12)
    with monkeypatch.context() as older:
        older.setattr("vivace.engine.tiering.KV_LAYOUT", KV_LAYOUT - 1)
        assert one != kv_fingerprint(model, executor, "f16", 12)
    model.write_bytes(bytes(299_999) + b"\x01")
    assert one != kv_fingerprint(model, executor, "f16", 12)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.safetensors").write_bytes(b"a")
    assert len({kv_fingerprint(folder, executor), one}) == 2


def test_impossible_sizes_are_refused() -> None:
    for wrong in ({"host_bytes": -1}, {"disk_bytes": 0}, {"max_sessions": 0}, {"session_share": 0.0}):
        with pytest.raises(ConfigError):
            TierConfig(**wrong)  # type: ignore[arg-type]
    assert TierConfig().is_off and not TierConfig(host_bytes=1).is_off
