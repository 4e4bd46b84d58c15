"""A TCP proxy that cuts connections: each one passes so many bytes of the answer and is then reset or closed."""

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

DEADLINE_S = 30


@contextmanager
def cutting_proxy(
    port: int, next_limit: Callable[[], int | None], opened: list[socket.socket] | None = None
) -> Iterator[str]:
    """The URL of a proxy to a local port. `next_limit` gives the bytes for each connection, None for no limit.

    Connections of clients are put into `opened`, for `cut_now`.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            if opened is not None:
                opened.append(client)
            thread = threading.Thread(target=_relay, args=(client, port, next_limit()))
            threads.append(thread)
            thread.start()

    accepting = threading.Thread(target=serve)
    accepting.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        accepting.join(DEADLINE_S)
        for thread in threads:
            thread.join(DEADLINE_S)


def cut_now(opened: list[socket.socket]) -> None:
    """Cut all connections that are open."""
    while opened:
        _shut(opened.pop())


def _relay(client: socket.socket, port: int, limit: int | None) -> None:
    with client, socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as server:
        client.settimeout(DEADLINE_S)
        upward = threading.Thread(target=_pump, args=(client, server))
        upward.start()
        left = limit
        try:
            while piece := server.recv(65536 if left is None else max(1, min(65536, left))):
                if left is not None:
                    piece = piece[:left]
                    left -= len(piece)
                client.sendall(piece)
                if left == 0:
                    break
        except OSError:
            pass
        if limit is not None and limit % 2:  # half of the cuts are resets, as a lost network makes them
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with suppress(OSError):
                client.shutdown(socket.SHUT_RD)  # sends nothing, and wakes the thread that reads here
        else:
            _shut(client)
        _shut(server)
        client.close()
        upward.join(DEADLINE_S)


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while piece := source.recv(65536):
            target.sendall(piece)
    except OSError:
        pass
    _shut(target)


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
