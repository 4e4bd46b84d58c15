"""The HTTP server that also speaks HTTP/2 (Hypercorn, an optional dependency); HTTP/1.1 and WebSockets work as well.

Ends as the other one does: the first signal drains, then the model is closed, which ends the streams that are left.
"""

import asyncio
import importlib.util
import os
import signal
import socket
from typing import Any

from vivace.server.app import build_app
from vivace.server.config import ServerConfig
from vivace.server.loading import LoadingModel
from vivace.types.errors import MissingExtraError


def require_http2() -> None:
    """See that the server for HTTP/2 is installed.

    Raises:
        MissingExtraError: it is not.
    """
    if importlib.util.find_spec("hypercorn") is None:
        raise MissingExtraError("HTTP/2 needs the package hypercorn.", "Install it with: pip install 'vivace[http2]'.")


class Http2Server:
    """Hypercorn in this process.

    Args:
        config: of the server.
        model: what it serves; closed at the end.
        forced_end_s: connections that still hang so long after the model was closed are cut.

    Raises:
        MissingExtraError: Hypercorn is not installed.
    """

    def __init__(self, config: ServerConfig, model: LoadingModel, forced_end_s: float) -> None:
        require_http2()
        self._config = config
        self._model = model
        self._forced_end_s = forced_end_s
        self._app = build_app(config, model)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending = asyncio.Event()
        self._is_stopped = False

    def run(self, sockets: list[socket.socket]) -> None:
        """Serve on listening sockets until a signal or `stop`."""
        asyncio.run(self._serve(sockets))

    def stop(self) -> None:
        """Ask for a graceful end; may be called from any thread."""
        self._is_stopped = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._ending.set)

    async def _serve(self, sockets: list[socket.socket]) -> None:
        from hypercorn.asyncio import serve

        self._loop = asyncio.get_running_loop()
        if self._is_stopped:
            return
        self._take_signals(self._loop)
        app: Any = self._app  # an ASGI application, in another library's words for the same
        await serve(app, self._hypercorn_config(sockets), shutdown_trigger=self._end)

    def _take_signals(self, loop: asyncio.AbstractEventLoop) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                loop.add_signal_handler(number, self._ending.set)
            except (ValueError, RuntimeError):  # not the main thread: whoever owns that one stops us
                return

    async def _end(self) -> None:
        await self._ending.wait()
        loop = asyncio.get_running_loop()
        loop.call_later(self._config.drain_s, loop.run_in_executor, None, self._model.close)

    def _hypercorn_config(self, sockets: list[socket.socket]) -> Any:
        from hypercorn.config import Config

        config, transport = Config(), self._config.transport
        config.bind = [f"fd://{os.dup(listener.fileno())}" for listener in sockets]  # it closes what it is given
        config.graceful_timeout = self._config.drain_s + self._forced_end_s
        config.accesslog = config.errorlog = None
        config.include_server_header = False
        config.websocket_max_message_size = self._config.sizes.max_body_bytes
        if transport.certificate is not None:
            config.certfile = str(transport.certificate)
            config.keyfile = str(transport.key or transport.certificate)
        return config
