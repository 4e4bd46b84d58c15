"""Runs the HTTP server in this process until a signal ends it: port first, model in the background, answers drained."""

import asyncio
import contextlib
import errno
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Protocol

import uvicorn

from vivace.engine.service import ModelService
from vivace.server.app import build_app
from vivace.server.config import ServerConfig
from vivace.server.http2 import Http2Server, require_http2
from vivace.server.loading import LoadingModel, ModelState
from vivace.server.transport import TransportConfig
from vivace.types.errors import ConfigError

_FORCED_END_S = 5
"""After the model was closed, streams end by themselves; connections that still hang are cut this much later."""


def serve(
    config: ServerConfig,
    load: Callable[[], ModelService],
    announce: Callable[[str], None],
    load_stand_in: Callable[[], ModelService] | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        load: builds the model; runs in a thread while the port already answers /health.
        announce: called once with the page's URL when the model answers.
        load_stand_in: builds the smaller model that answers under high load.

    Raises:
        ConfigError: the address cannot be bound.
        VivaceError: what `load` raised.
    """
    if config.drain_s < 0:
        raise ConfigError(f"--drain is {config.drain_s}.", "Give 0 or more seconds.")
    check_transport(config.transport)
    listener = bind(config.host, config.port)
    url = page_url(listener, config.transport.scheme)

    def on_settled(settled: LoadingModel) -> None:
        if settled.state is ModelState.READY:
            announce(url)
        else:
            server.stop()

    def on_stand_in(settled: LoadingModel) -> None:
        if settled.state is not ModelState.READY:
            server.stop()

    stand_in = None if load_stand_in is None else LoadingModel(load_stand_in, on_stand_in)
    model = LoadingModel(load, on_settled, stand_in)
    try:
        server = build_server(config, model)
        model.start()
        server.run([listener])
    finally:
        listener.close()
        model.close()
        model.join(_FORCED_END_S)
    for loaded in (model, stand_in):
        if loaded is not None and loaded.failure is not None:
            raise loaded.failure


class Server(Protocol):
    """An HTTP server in this process."""

    def run(self, sockets: list[socket.socket]) -> None:
        """Serve until a signal or `stop`."""
        ...

    def stop(self) -> None:
        """Ask for a graceful end; may be called from any thread."""
        ...


def build_server(config: ServerConfig, model: LoadingModel) -> Server:
    """The HTTP server for a config.

    Raises:
        MissingExtraError: it is not installed.
    """
    if config.transport.http2:
        return Http2Server(config, model, _FORCED_END_S)
    return SignalledServer(config, model)


def check_transport(transport: TransportConfig) -> None:
    """Try the certificate now, and see that the server is there.

    Raises:
        ConfigError: certificate or key cannot be used.
        MissingExtraError: the server for HTTP/2 is not installed.
    """
    if transport.http2:
        require_http2()
    if transport.certificate is None:
        return
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(transport.certificate, transport.key)
    except OSError as error:
        raise ConfigError(
            f"The certificate {transport.certificate} cannot be used: {error}.",
            "Give PEM files with --tls-certificate and --tls-key.",
        ) from None


def bind(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        ConfigError: the port is taken or not allowed, or the host is not an address of this machine.
    """
    if not 0 <= port <= 65535:
        raise ConfigError(f"The port {port} does not exist.", "Use --port with 0 to 65535.")
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, proto)
    except OSError as error:
        raise _bind_error(host, port, error) from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
    except OSError as error:
        listener.close()
        raise _bind_error(host, port, error) from None
    return listener


def _bind_error(host: str, port: int, error: OSError) -> ConfigError:
    reasons = {
        errno.EADDRINUSE: (f"Port {port} on {host} is already in use.", "Stop what uses it, or choose another --port."),
        errno.EACCES: (f"Port {port} may not be opened by this user.", "Choose a --port above 1023."),
        errno.EADDRNOTAVAIL: (f"{host} is not an address of this machine.", "Use --host 127.0.0.1 or 0.0.0.0."),
    }
    fallback = f"Cannot listen on {host}:{port}: {error.strerror or error}."
    return ConfigError(*reasons.get(error.errno or 0, (fallback, "Check --host and --port.")))


def page_url(listener: socket.socket, scheme: str = "http") -> str:
    """Where a browser on this machine finds the chat page."""
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"{scheme}://{shown}:{port}/"


class SignalledServer(uvicorn.Server):
    """A uvicorn server whose first signal drains and whose second one cuts.

    Running answers get `drain_s` to finish. Then the model is closed, which ends their streams with an error event.
    """

    def __init__(self, config: ServerConfig, model: LoadingModel) -> None:
        super().__init__(
            uvicorn.Config(
                build_app(config, model),
                log_config=None,
                access_log=False,
                lifespan="on",
                ws="websockets-sansio",
                ws_max_size=config.sizes.max_body_bytes,
                ssl_certfile=config.transport.certificate,
                ssl_keyfile=config.transport.key,
                server_header=False,
                timeout_graceful_shutdown=config.drain_s + _FORCED_END_S,
            )
        )
        self._model = model
        self._drain_s = config.drain_s

    def stop(self) -> None:
        """Ask for a graceful end; may be called from any thread."""
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals for the time of serving. Unlike the base class, a handled signal is not raised again after."""
        handled = (signal.SIGINT, signal.SIGTERM)
        try:
            previous = {number: signal.signal(number, self.handle_exit) for number in handled}
        except ValueError:  # not the main thread: whoever owns that one stops us
            previous = {}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _close_model(self) -> None:
        """Not on the event loop: the streams that this ends still have to be written there."""
        asyncio.get_running_loop().run_in_executor(None, self._model.close)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, let running answers finish for a while, then end them."""
        closing = asyncio.get_running_loop().call_later(self._drain_s, self._close_model)
        try:
            await super().shutdown(sockets)
        finally:
            closing.cancel()
