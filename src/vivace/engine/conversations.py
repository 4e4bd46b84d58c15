"""Conversations beyond one request: saved with their keys and values, restored after a restart, and fetched early.

Whoever saves a conversation gets an id; with it the same owner has it back, and the blocks of its history come back to
the engine's pool before the next turn is asked. A hint does the same for somebody who is only typing yet.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial

from vivace.cache.disk_tier import DiskTier
from vivace.engine.core import Engine
from vivace.engine.loop import EngineLoop
from vivace.engine.session_store import (
    SessionRecord,
    SessionRoomError,
    SessionsOffError,
    SessionStore,
    new_session_id,
)
from vivace.types.errors import VivaceError
from vivace.types.request import ChatMessage, GenerationRequest
from vivace.types.step import BLOCK_SIZE, BlockContent

Admit = Callable[[Sequence[ChatMessage], Mapping[str, object]], GenerationRequest]


@dataclass(frozen=True, slots=True)
class SessionRoom:
    """Where sessions are kept: records, the disk tier that has their blocks, and how many blocks they may pin."""

    store: SessionStore
    disk: DiskTier
    max_blocks: int


@dataclass(frozen=True, slots=True)
class SavedConversation:
    """What is known of a saved conversation.

    Args:
        session_id: to have it back with.
        messages: what was said.
        num_tokens: of its prompt.
        num_saved_tokens: of these, whose keys and values are on disk.
        num_ready_tokens: of these, in the engine's pool after a `restore`.
    """

    session_id: str
    messages: tuple[ChatMessage, ...]
    num_tokens: int
    num_saved_tokens: int
    num_ready_tokens: int = 0


class Conversations:
    """Saves, restores and deletes conversations, and preloads those that are expected. May be used from any thread.

    Args:
        loop: the engine's.
        admit: a conversation and its parameters to a request; its prompt names the blocks.
        room: where sessions are kept; None: they are refused.
    """

    def __init__(self, loop: EngineLoop, admit: Admit, room: SessionRoom | None) -> None:
        self._loop = loop
        self._admit = admit
        self._room = room

    def save(
        self,
        owner: str,
        messages: Sequence[ChatMessage],
        parameters: Mapping[str, object] | None = None,
        session_id: str | None = None,
    ) -> SavedConversation:
        """Keep a conversation with those of its keys and values that the engine still has; waits for the disk.

        Args:
            owner: who may have it back.
            messages: what was said, the last answer included.
            parameters: `tenant`, `long_chat` and others that requests of this conversation are made with.
            session_id: of a saved conversation that this one continues; None: a new one.

        Raises:
            SessionsOffError: the engine has no folder for sessions.
            UnknownSessionError: no such session of this owner.
            SessionRoomError: there is no room for another one.
            RequestError: the conversation or a parameter is malformed.
        """
        room = self._checked_room()
        before = None if session_id is None else room.store.find(owner, session_id)
        if before is None:
            room.store.check_room()
        given = dict(parameters or {})
        request = self._request(messages, given)
        keys, num_blocks = self._loop.ask(partial(_keep_on_disk, request=request)).result()
        try:
            if room.disk.num_pinned > room.max_blocks:
                raise SessionRoomError("Saved conversations fill the room they have.", "Delete some.")
            room.disk.flush()
            name = before.session_id if before is not None else new_session_id()
            num_tokens, num_saved = len(request.prompt_ids), num_blocks * BLOCK_SIZE
            record = SessionRecord(name, owner, tuple(messages), given, num_tokens, keys, num_saved)
            room.store.write(record)
        except VivaceError:
            room.disk.unpin(keys)
            raise
        if before is not None:
            room.disk.unpin(before.keys, forget=True)
        return _told(record)

    def restore(self, owner: str, session_id: str) -> SavedConversation:
        """Have a conversation back, its keys and values first of all: waits until they are in the engine's pool.

        Raises:
            SessionsOffError: the engine has no folder for sessions.
            UnknownSessionError: no such session of this owner.
        """
        record = self._checked_room().store.find(owner, session_id)
        num_blocks = self.preload(self._request(record.messages, record.parameters)).result()
        return replace(_told(record), num_ready_tokens=num_blocks * BLOCK_SIZE)

    def delete(self, owner: str, session_id: str) -> None:
        """Forget a conversation and what only it needs on disk.

        Raises:
            SessionsOffError: the engine has no folder for sessions.
            UnknownSessionError: no such session of this owner.
        """
        room = self._checked_room()
        room.disk.unpin(room.store.delete(owner, session_id).keys, forget=True)

    def expect_session(self, owner: str, session_id: str) -> "Future[int]":
        """As `expect`, for a saved conversation.

        Raises:
            SessionsOffError: the engine has no folder for sessions.
            UnknownSessionError: no such session of this owner.
        """
        record = self._checked_room().store.find(owner, session_id)
        return self.preload(self._request(record.messages, record.parameters))

    def expect(self, messages: Sequence[ChatMessage], parameters: Mapping[str, object] | None = None) -> "Future[int]":
        """Somebody is about to go on with a conversation: bring its keys and values back to the pool.

        Returns:
            At once; later the number of blocks of the prompt that are in the pool.

        Raises:
            RequestError: the conversation or a parameter is malformed.
        """
        return self.preload(self._request(messages, dict(parameters or {})))

    def preload(self, request: GenerationRequest) -> "Future[int]":
        """The prefix of a request that has not come yet; see `expect`."""
        done: Future[int] = Future()
        self._ask_for(done, lambda engine: self._read_ahead(engine, request, done))
        return done

    def _read_ahead(self, engine: Engine, request: GenerationRequest, done: "Future[int]") -> None:
        """On the engine's thread: what is on disk alone comes first to memory, in the disk's thread."""

        def come(contents: Mapping[bytes, BlockContent]) -> None:
            self._ask_for(done, lambda engine: done.set_result(engine.preload(request, contents)))

        if not engine.read_ahead(request, come):
            done.set_result(engine.preload(request))

    def _ask_for(self, done: "Future[int]", question: Callable[[Engine], None]) -> None:
        def settle(asked: "Future[None]") -> None:
            error = asked.exception()
            if error is not None and not done.done():
                done.set_exception(error)

        try:
            self._loop.ask(question).add_done_callback(settle)
        except VivaceError as error:
            done.set_exception(error)

    def _request(self, messages: Sequence[ChatMessage], parameters: Mapping[str, object]) -> GenerationRequest:
        return self._admit(messages, {**parameters, "max_tokens": 1})

    def _checked_room(self) -> SessionRoom:
        if self._room is None:
            raise SessionsOffError()
        return self._room


def _keep_on_disk(engine: Engine, request: GenerationRequest) -> tuple[tuple[bytes, ...], int]:
    return engine.keep_on_disk(request)


def _told(record: SessionRecord) -> SavedConversation:
    return SavedConversation(record.session_id, record.messages, record.num_tokens, record.num_saved_tokens)
