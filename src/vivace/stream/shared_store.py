"""A store of streams that several servers share: who runs a stream, who reads it elsewhere, who takes it over.

A stream belongs to the server that holds its lease. Each server renews its leases with a heartbeat; a lease that was
not renewed in time may be claimed by another, which raises the stream's fencing token. A server that was paused and
comes back still has the older token, so nothing that it writes is taken (Kleppmann, "How to do distributed locking",
2016). Nouns and the protocol; no storage.
"""

from collections.abc import AsyncGenerator, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from vivace.stream.journal import RunRecord, SavedRun, StreamStore
from vivace.stream.lifecycle import StreamStatus
from vivace.stream.log import LogEvent


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """Where the streams of a server are kept.

    Args:
        file: an SQLite file of this server alone; None: none.
        url: a Redis that several servers share, such as redis://localhost:6379/0; None: none.
        lease_s: a server that gave no sign of life for so long has lost its streams to the others.
    """

    file: Path | None = None
    url: str | None = None
    lease_s: float = 5.0


IN_MEMORY = StoreConfig()
"""Streams end with the process."""


@dataclass(frozen=True, slots=True)
class StreamHead:
    """What a store tells of a stream without its events."""

    record: RunRecord
    status: StreamStatus


@dataclass(frozen=True, slots=True)
class LeaseNews:
    """What a heartbeat brought about one stream of this server.

    Args:
        is_ours: it still is.
        is_stop_wanted: a client has asked another server to end it.
        is_read_elsewhere: another server has a reader of it.
    """

    stream_id: str
    is_ours: bool
    is_stop_wanted: bool
    is_read_elsewhere: bool


@runtime_checkable
class SharedStore(StreamStore, Protocol):
    """A store whose `append` and `end` raise StreamMovedError once another server holds the stream.

    Its own streams are those it began or claimed. Methods that wait for nobody may be called from any thread.
    """

    def head(self, stream_id: str) -> StreamHead | None:
        """What a stream is; None: there is none.

        Raises:
            OverloadedError: the store cannot be reached.
        """
        ...

    def find(self, stream_id: str) -> SavedRun | None:
        """All of a stream at one moment; None: there is none.

        Raises:
            OverloadedError: the store cannot be reached.
        """
        ...

    def orphans(self, most: int) -> Sequence[str]:
        """Streams whose servers gave no sign of life in time.

        Raises:
            OverloadedError: the store cannot be reached.
        """
        ...

    def claim(self, stream_id: str) -> bool:
        """Take a stream over, unless somebody holds it or it has ended.

        Raises:
            OverloadedError: the store cannot be reached.
        """
        ...

    def stop(self, stream_id: str) -> None:
        """Ask whoever runs a stream to end it.

        Raises:
            OverloadedError: the store cannot be reached.
        """
        ...

    def beat(self, read_here: Collection[str]) -> Sequence[LeaseNews]:
        """Give a sign of life for all streams of this server, and for its readers of streams of others.

        Raises:
            OverloadedError: the store cannot be reached.
        """
        ...

    def follow(self, stream_id: str, after: int) -> AsyncGenerator[Sequence[LogEvent], None]:
        """The events after a number as they are written, until the caller has enough.

        Raises:
            StreamMovedError: the store cannot be reached, or holds the stream no longer.
        """
        ...
