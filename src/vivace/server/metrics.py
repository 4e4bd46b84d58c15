"""What the server counts, in the text format of Prometheus: streams as they happen, the engine when it is asked."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

from vivace.cache.tiers import TierStats
from vivace.engine.stats import EngineStats
from vivace.server.loading import LoadingModel, ModelState
from vivace.types.speculation import SpeculationUsage

STALL_S = 1.0
"""A gap of so long between two tokens of a stream counts as a stall."""

_WAITS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30, 60)
_SPEEDS = (1, 2, 5, 10, 15, 20, 30, 40, 60, 80, 120, 200)
_BUFFERS = (0, 0.1, 0.25, 0.5, 1, 2, 3, 5, 10)
_BACKLOGS = (0, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 120)
_SHARES = (0, 0.1, 0.25, 0.5, 0.75, 0.9, 1)
_RTTS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 2)


class StreamMetrics:
    """A `StreamMeter` that counts into a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own: dict[str, Any] = {"registry": self.registry, "namespace": "vivace", "subsystem": "stream"}
        self._running = Gauge("running", "Streams that have not ended", **own)
        self._ttft = Histogram("ttft_seconds", "Time to the first token", buckets=_WAITS, **own)
        self._tokens = Counter("tokens", "Tokens written into streams", **own)
        self._speed = Histogram("tokens_per_second", "Speed of a whole stream", buckets=_SPEEDS, **own)
        self._stalls = Counter("stalls", f"Gaps of over {STALL_S:g} s between tokens", **own)
        self._ended = Counter("ended", "Streams by their end", ["status"], **own)
        self._readers = Counter("readers", "Readers that attached", **own)
        self._resumes = Counter("resumes", "Readers that came back after an event they had", **own)
        self._interruptions = Counter("interruptions", "Readers that left before the end", **own)
        self._buffer = Histogram("client_buffer_seconds", "Unread text, as clients report it", buckets=_BUFFERS, **own)
        self._rtt = Histogram("client_rtt_seconds", "Round trip times, as clients report them", buckets=_RTTS, **own)
        self._utilisation = Histogram(
            "client_buffer_utilisation", "How full playback buffers are, as clients report it", buckets=_SHARES, **own
        )
        self._backlog = Histogram("backlog_seconds", "Text that connections have not taken", buckets=_BACKLOGS, **own)
        self._network_rtt = Histogram("network_rtt_seconds", "Round trips, as TCP measures", buckets=_RTTS, **own)
        self._client_stalls = Counter("client_stalls", "Waits for text, as clients report them", **own)

    def started(self) -> None:
        """See StreamMeter."""
        self._running.inc()

    def first_token(self, wait_s: float) -> None:
        """See StreamMeter."""
        self._ttft.observe(wait_s)

    def tokens(self, count: int, gap_s: float) -> None:
        """See StreamMeter."""
        self._tokens.inc(count)
        if gap_s > STALL_S:
            self._stalls.inc()

    def ended(self, status: str, num_tokens: int, decode_s: float) -> None:
        """See StreamMeter."""
        self._running.dec()
        self._ended.labels(status).inc()
        if num_tokens > 1 and decode_s > 0:
            self._speed.observe((num_tokens - 1) / decode_s)

    def reader_came(self, is_resume: bool) -> None:
        """See StreamMeter."""
        self._readers.inc()
        if is_resume:
            self._resumes.inc()

    def reader_left(self, is_early: bool) -> None:
        """See StreamMeter."""
        if is_early:
            self._interruptions.inc()

    def measured(self, backlog_s: float, rtt_s: float | None) -> None:
        """See StreamMeter."""
        self._backlog.observe(backlog_s)
        if rtt_s is not None:
            self._network_rtt.observe(rtt_s)

    def reported(
        self, buffer_s: float | None, rtt_s: float | None, num_stalls: int, utilisation: float | None = None
    ) -> None:
        """See StreamMeter."""
        if buffer_s is not None:
            self._buffer.observe(buffer_s)
        if rtt_s is not None:
            self._rtt.observe(rtt_s)
        if utilisation is not None:
            self._utilisation.observe(utilisation)
        self._client_stalls.inc(num_stalls)


class EngineMetrics(Collector):
    """The engine's numbers: totals are counters, what holds at this moment are gauges."""

    def __init__(self, model: LoadingModel) -> None:
        self._model = model

    def collect(self) -> Iterable[Metric]:
        """One metric for each field of `EngineStats` that is known."""
        if self._model.state is not ModelState.READY:
            return
        stats = self._model.service().stats()
        yield from _families(stats, "vivace_engine", ("prefix_hit_rate", "kv_utilisation"))
        if stats.tiers is not None:
            yield from _families(stats.tiers, "vivace_tiers", ("hit_rate", "spill_rate", "preload_hit_rate"))
        if stats.speculation is not None:
            yield from _families(stats.speculation, "vivace_speculation", ("speedup",))
            yield from _by_position(stats.speculation)


def _families(stats: EngineStats | TierStats | SpeculationUsage, prefix: str, rates: Sequence[str]) -> Iterator[Metric]:
    """The numbers among the fields, and the rates that are made of them."""
    for name in (*(field.name for field in fields(stats)), *rates):
        value = getattr(stats, name)
        if not isinstance(value, int | float):
            continue
        family = CounterMetricFamily if name.startswith("num_") else GaugeMetricFamily
        yield family(f"{prefix}_{name.removeprefix('num_')}", f"{type(stats).__name__}.{name}", value=value)


def _by_position(usage: SpeculationUsage) -> Iterator[Metric]:
    """Drafts tried and accepted at each position, the first draft at 0."""
    for name in ("tried_at", "accepted_at"):
        family = CounterMetricFamily(f"vivace_speculation_{name}", f"SpeculationUsage.{name}", labels=("position",))
        for position, count in enumerate(getattr(usage, name)):
            family.add_metric((str(position),), count)
        yield family


class MetricsEndpoint:
    """GET /metrics over one registry."""

    def __init__(self, metrics: StreamMetrics, model: LoadingModel) -> None:
        self._registry = metrics.registry
        self._registry.register(EngineMetrics(model))

    async def scrape(self, request: Request) -> Response:
        """All metrics as text."""
        return Response(generate_latest(self._registry), headers={"content-type": CONTENT_TYPE_LATEST})
