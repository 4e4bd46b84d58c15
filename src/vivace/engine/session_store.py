"""Saved conversations in files: what was said, whose it is, and the names of the blocks that hold its keys and values.

One small file a conversation, written whole or not at all, under a name that tells nothing. A caller finds its own by
their unguessable ids; ids of others, unknown ids and damaged files are all the same answer. Nothing lists them.
"""

import hashlib
import json
import os
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from vivace.types.errors import ConfigError, RequestError, StorageError
from vivace.types.request import ChatMessage
from vivace.types.step import BLOCK_SIZE

VERSION = 1
SUFFIX = ".json"
MAX_RECORD_BYTES = 8 << 20


class UnknownSessionError(RequestError):
    """No such saved conversation, or not this caller's: the two are not told apart, so that ids cannot be probed."""

    code: ClassVar[str] = "session_not_found"
    http_status: ClassVar[int] = 404

    def __init__(self) -> None:
        super().__init__("There is no such session.", "It may have been deleted; save the conversation again.")


class SessionsOffError(ConfigError):
    """The engine has no folder for saved conversations."""

    code: ClassVar[str] = "sessions_off"
    http_status: ClassVar[int] = 501

    def __init__(self) -> None:
        super().__init__("Conversations are not saved here.", "Start the server with --kv-folder FOLDER.")


class SessionRoomError(StorageError):
    """There is no room for another saved conversation."""

    code: ClassVar[str] = "session_room"
    http_status: ClassVar[int] = 507


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """One saved conversation.

    Args:
        session_id: unguessable.
        owner: who may have it.
        messages: what was said.
        parameters: of the request that its prompt is made with, such as tenant and long_chat.
        num_tokens: of the prompt.
        keys: names of the blocks on disk that hold the beginning of the prompt, of every kind of layers.
        num_saved_tokens: of the prompt, that these hold.
    """

    session_id: str
    owner: str
    messages: tuple[ChatMessage, ...]
    parameters: Mapping[str, object]
    num_tokens: int = 0
    keys: tuple[bytes, ...] = ()
    num_saved_tokens: int = 0


def new_session_id() -> str:
    """A name with 192 random bits."""
    return f"session-{secrets.token_urlsafe(24)}"


class SessionStore:
    """Keeps records. May be used from any thread.

    Args:
        folder: of the records; made when it is not there.
        max_sessions: more are refused.

    Raises:
        StorageError: the folder cannot be made or read.
    """

    def __init__(self, folder: Path, max_sessions: int) -> None:
        self._folder = folder
        self._max_sessions = max_sessions
        self._lock = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for unfinished in folder.glob("*.part"):
                unfinished.unlink(missing_ok=True)
            self._names = {path.name for path in folder.glob(f"*{SUFFIX}")}
        except OSError as error:
            raise StorageError(f"{folder} cannot keep sessions: {error}.", "Name a folder of yours.") from None

    def __len__(self) -> int:
        return len(self._names)

    def records(self) -> list[SessionRecord]:
        """All that can be read, for their blocks."""
        found = (_read(self._folder / name) for name in sorted(self._names))
        return [record for record in found if record is not None]

    def find(self, owner: str, session_id: str) -> SessionRecord:
        """A caller's record.

        Raises:
            UnknownSessionError: there is none of that id that is this caller's.
        """
        record = _read(self._folder / _name(owner, session_id))
        if record is None or record.owner != owner or record.session_id != session_id:
            raise UnknownSessionError()
        return record

    def check_room(self) -> None:
        """Refuse a new record where there are too many.

        Raises:
            SessionRoomError: there are.
        """
        if len(self._names) >= self._max_sessions:
            raise SessionRoomError(f"{len(self._names)} sessions are saved, which is the limit.", "Delete some.")

    def write(self, record: SessionRecord) -> None:
        """Keep a record, in place of an older one of the same id.

        Raises:
            StorageError: it cannot be written, or is too long.
        """
        name = _name(record.owner, record.session_id)
        text = json.dumps(_to_json(record), ensure_ascii=False).encode("utf-8", "surrogatepass")
        if len(text) > MAX_RECORD_BYTES:
            raise StorageError(f"The conversation has {len(text)} bytes.", f"Save at most {MAX_RECORD_BYTES}.")
        unfinished = self._folder / f"{name}-{secrets.token_hex(4)}.part"
        try:
            descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(self._folder / name)
        except OSError as error:
            unfinished.unlink(missing_ok=True)
            raise StorageError(f"The session cannot be saved: {error}.", "Make room on the disk.") from None
        with self._lock:
            self._names.add(name)

    def delete(self, owner: str, session_id: str) -> SessionRecord:
        """Forget a caller's record and return it.

        Raises:
            UnknownSessionError: there is none of that id that is this caller's.
        """
        record = self.find(owner, session_id)
        name = _name(owner, session_id)
        (self._folder / name).unlink(missing_ok=True)
        with self._lock:
            self._names.discard(name)
        return record


def _name(owner: str, session_id: str) -> str:
    content = json.dumps((owner, session_id)).encode()
    return hashlib.blake2b(content, digest_size=20).hexdigest() + SUFFIX


def _to_json(record: SessionRecord) -> dict[str, Any]:
    return {
        "version": VERSION,
        "session_id": record.session_id,
        "owner": record.owner,
        "messages": [[message.role, message.content] for message in record.messages],
        "parameters": dict(record.parameters),
        "num_tokens": record.num_tokens,
        "keys": [key.hex() for key in record.keys],
        "num_saved_tokens": record.num_saved_tokens,
    }


def _read(path: Path) -> SessionRecord | None:
    """A record, or None for a file that is absent, damaged or of another version."""
    try:
        found = json.loads(path.read_bytes().decode("utf-8", "surrogatepass"))
        if found["version"] != VERSION:
            return None
        return SessionRecord(
            str(found["session_id"]),
            str(found["owner"]),
            tuple(ChatMessage(str(role), str(content)) for role, content in found["messages"]),
            dict(found["parameters"]),
            int(found["num_tokens"]),
            tuple(bytes.fromhex(key) for key in found["keys"]),
            int(found.get("num_saved_tokens", len(found["keys"]) * BLOCK_SIZE)),
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
