"""What metrics tell of the steps against high load."""

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge


class LoadMeter:
    """Counts into a registry.

    Args:
        registry: of the server.
        kinds: of the steps that are configured, so that each is told of before it is taken.
    """

    def __init__(self, registry: CollectorRegistry, kinds: tuple[str, ...]) -> None:
        own: dict[str, Any] = {"registry": registry, "namespace": "vivace", "subsystem": "load"}
        self._taken = Gauge("step", "1 while a step against high load is taken", ["step"], **own)
        self._changes = Counter("changes", "Steps against high load, taken or taken back", ["step", "what"], **own)
        for kind in kinds:
            self._taken.labels(kind).set(0)

    def changed(self, kind: str, is_taken: bool) -> None:
        """A step was taken, or taken back."""
        self._taken.labels(kind).set(int(is_taken))
        self._changes.labels(kind, "taken" if is_taken else "taken_back").inc()
