"""What an operator chooses about the server. Nothing changes a config after it is made."""

from dataclasses import dataclass

from vivace.server.load_steps import NO_STEPS, LoadConfig
from vivace.server.transport import CLEAR_TEXT, TransportConfig
from vivace.stream.options import DEFAULTS, RunOptions
from vivace.stream.safety.screen import SafetyConfig
from vivace.stream.shared_store import IN_MEMORY, StoreConfig


@dataclass(frozen=True, slots=True)
class RequestSizes:
    """What one request may hold.

    Args:
        max_body_bytes: larger request bodies are refused with status 413.
        max_prompts: most prompts in one `/v1/completions` request.
    """

    max_body_bytes: int = 8 * 1024 * 1024
    max_prompts: int = 64


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Settings of one HTTP server.

    Args:
        host: address to bind; the default is reachable from this machine only.
        port: TCP port, 0 lets the system choose.
        api_key: when set, the API endpoints ask for it as `Authorization: Bearer KEY`; the page and the probes do not.
        cors_origins: web origins, such as "https://example.org", whose pages may call the API; "*" means any.
        sizes: of one request.
        drain_s: how long a shutdown waits for answers that are being written.
        log_share: share of the streams that diagnostics tell of, once the logger "vivace.stream" is on.
        safety: what may not leave the server; None: no filter.
        store: where streams are kept, so that they go on after the process was killed.
        load: what is done under high load.
        streams: what a streamed answer does, unless its request says otherwise.
        transport: HTTP versions and encryption.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = None
    cors_origins: tuple[str, ...] = ()
    sizes: RequestSizes = RequestSizes()
    drain_s: int = 10
    log_share: float = 1.0
    safety: SafetyConfig | None = None
    store: StoreConfig = IN_MEMORY
    load: LoadConfig = NO_STEPS
    streams: RunOptions = DEFAULTS
    transport: TransportConfig = CLEAR_TEXT
