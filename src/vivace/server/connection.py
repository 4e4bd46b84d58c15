"""The server's own end of a reader's TCP connection: how long a round trip takes, and what is not taken yet.

Where the web server does not show its transport (Hypercorn), or the kernel tells nothing (other systems than Linux),
less is known and nothing breaks.
"""

import array
import contextlib
import fcntl
import socket
import struct
import sys
import termios
from collections.abc import Iterator
from typing import Any

from starlette.types import Scope, Send

BUFFER_BYTES = 16 * 1024
"""What a connection may hold here, and in the kernel beyond what the network takes: about a hundred events."""

_KEY = "vivace.connection"
_RTT_OFFSET = 68  # of tcpi_rtt in struct tcp_info (linux/tcp.h), microseconds
_TCP_NOTSENT_LOWAT = 25  # linux/tcp.h; not in the socket module of Python 3.11


class Connection:
    """One connection.

    Args:
        transport: of asyncio; None: unknown.
    """

    def __init__(self, transport: Any = None) -> None:
        self._transport = transport
        self._socket: Any = None if transport is None else transport.get_extra_info("socket")
        self._is_linux = sys.platform == "linux" and self._socket is not None

    def bound(self) -> None:
        """Let little pile up: a reader that takes nothing makes its sender wait soon, and costs little memory."""
        if self._transport is None:
            return
        with contextlib.suppress(OSError, ValueError, AttributeError, NotImplementedError):
            self._transport.set_write_buffer_limits(high=BUFFER_BYTES)
            if self._is_linux:
                self._socket.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, BUFFER_BYTES)

    def rtt_s(self) -> float | None:
        """Round trip time as TCP has smoothed it; None: unknown."""
        if not self._is_linux:
            return None
        try:
            info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
            return float(struct.unpack_from("I", info, _RTT_OFFSET)[0]) / 1e6
        except (OSError, ValueError, struct.error):  # closed meanwhile (uvloop says ValueError), or no TCP
            return None

    def num_in_flight(self) -> int:
        """Bytes that were sent and that the other end has not confirmed, those included that wait here."""
        if self._transport is None:
            return 0
        try:
            num_bytes = int(self._transport.get_write_buffer_size())
            if self._is_linux:
                queued = array.array("i", [0])
                fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, queued)
                num_bytes += queued[0]
        except (OSError, ValueError, AttributeError, NotImplementedError):
            return 0
        return num_bytes

    @contextlib.contextmanager
    def corked(self, is_corked: bool) -> Iterator[None]:
        """What is written meanwhile goes out in as few packets as it needs."""
        if not (is_corked and self._is_linux):
            yield
            return
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)


UNKNOWN = Connection()
"""A connection of which nothing is known."""


def note_connection(scope: Scope, send: Send) -> None:
    """Remember the connection of a request; to be called where `send` is still the web server's own."""
    transport = getattr(getattr(send, "__self__", None), "transport", None)
    if transport is not None and hasattr(transport, "get_write_buffer_size"):
        scope[_KEY] = Connection(transport)


def connection_of(scope: Scope) -> Connection:
    """The connection of a request."""
    known = scope.get(_KEY)
    return known if isinstance(known, Connection) else UNKNOWN
