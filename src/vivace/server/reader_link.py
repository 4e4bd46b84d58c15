"""Between a reader of a stream and its connection: measures the network, and says how often to send on it."""

import asyncio
from collections.abc import Sequence

from vivace.server.connection import Connection
from vivace.stream.log import LogEvent
from vivace.stream.network import NetworkConfig, NetworkHealth
from vivace.stream.reader import StreamReader

LOOK_S = 0.5
"""Time between two looks at a connection."""


class ReaderLink:
    """One reader over one connection. Belongs to the event loop.

    Args:
        reader: of the stream.
        connection: that it reads over.
        config: when its network is poor.
    """

    def __init__(self, reader: StreamReader, connection: Connection, config: NetworkConfig) -> None:
        self._reader = reader
        self._connection = connection
        self._health = NetworkHealth(config)
        self._looked_s = self._began_s = _now_s()
        self._longest_wait_s = 0.0
        self._num_bytes = 0
        self._told: dict[str, object] | None = None
        self._reading_s = 0.0
        connection.bound()

    @property
    def is_poor(self) -> bool:
        """Whether the network is."""
        return self._health.is_poor

    def send_every_s(self) -> float:
        """Least time between two sends."""
        return self._health.send_every_s

    def take_notice(self) -> dict[str, object] | None:
        """What this reader is to be told of its network, once; no part of the stream, which others read as well."""
        told, self._told = self._told, None
        return told if self._reader.run.options.events else None

    def sending(self) -> None:
        """A send begins."""
        self._began_s = _now_s()

    def sent(self, events: Sequence[LogEvent | None], num_bytes: int) -> None:
        """The connection has taken what was sent."""
        now_s = _now_s()
        self._longest_wait_s = max(self._longest_wait_s, now_s - self._began_s)
        self._num_bytes += num_bytes
        self._reading_s += sum(event.reading_s for event in events if event is not None)
        if now_s - self._looked_s >= LOOK_S:
            self._look(now_s)

    def _look(self, now_s: float) -> None:
        """Measure, and tell the stream."""
        run, told_rtt_s = self._reader.run, self._reader.rtt_s
        rtt_s = self._connection.rtt_s() if told_rtt_s is None else told_rtt_s
        in_flight_s = self._connection.num_in_flight() * self._reading_s / max(1, self._num_bytes)
        run.note_network(in_flight_s, rtt_s)
        has_changed = self._health.note(now_s, rtt_s, self._longest_wait_s)
        self._looked_s, self._longest_wait_s = now_s, 0.0
        if has_changed:
            self._reader.hold_back(not self.is_poor)
            self._told = {"quality": "poor" if self.is_poor else "good", "send_every_s": self.send_every_s()}


def _now_s() -> float:
    return asyncio.get_running_loop().time()
