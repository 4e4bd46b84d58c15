"""Who may join the queue: refuses at once what could not be served in time, and ends what has waited too long."""

import heapq
from collections import Counter

from vivace.schedule.forecast import Forecast
from vivace.schedule.queue_config import QueueConfig
from vivace.schedule.sequence import Sequence
from vivace.types.errors import OverloadedError, TenantLimitError


class AdmissionGate:
    """Counts who waits and watches the clock for them.

    Args:
        config: limits.
    """

    def __init__(self, config: QueueConfig) -> None:
        self._config = config
        self._expiries: list[tuple[float, str]] = []
        self.num_refused = 0
        self.num_timed_out = 0
        self.last_forecast: Forecast | None = None

    def check(self, newcomer: Sequence, waiting: Counter[str], forecast: Forecast | None) -> None:
        """Let a newcomer pass.

        Args:
            newcomer: about to wait.
            waiting: sequences that wait, by tenant.
            forecast: what it has to expect; None where nothing is known yet.

        Raises:
            TenantLimitError: its tenant has too many requests waiting.
            OverloadedError: the queue is full, or it could not be served in time.
        """
        self.last_forecast = forecast
        if newcomer.request.continuation is not None:  # it was let in once
            return
        try:
            self._check_length(newcomer.request.service_level.tenant, waiting, forecast)
            if forecast is not None:
                self._check_targets(newcomer, forecast)
        except OverloadedError:
            self.num_refused += 1
            raise

    def watch(self, sequence: Sequence) -> None:
        """End the request if it has not started in time."""
        if sequence.request.continuation is not None:
            return
        own = sequence.request.service_level.queue_timeout_s
        timeout_s = self._config.queue_timeout_s if own is None else own
        if timeout_s is not None:
            heapq.heappush(self._expiries, (sequence.arrived_s + timeout_s, sequence.request.request_id))

    def take_expired(self, now_s: float) -> list[str]:
        """Requests whose time in the queue is over; some may have started or ended long ago."""
        expired = []
        while self._expiries and self._expiries[0][0] <= now_s:
            expired.append(heapq.heappop(self._expiries)[1])
        return expired

    def _check_length(self, tenant: str, waiting: Counter[str], forecast: Forecast | None) -> None:
        retry_after_s = 1.0 if forecast is None else max(1.0, forecast.start_s)
        if waiting.total() >= self._config.max_waiting:
            raise OverloadedError(
                f"The queue is full: {waiting.total()} requests wait.",
                f"Try again in {retry_after_s:.0f} s.",
                retry_after_s=retry_after_s,
            )
        most = self._config.max_waiting_per_tenant
        if most is not None and waiting[tenant] >= most:
            raise TenantLimitError(
                f"{waiting[tenant]} of your requests wait already, and {most} may.",
                f"Wait for an answer, or try again in {retry_after_s:.0f} s.",
                retry_after_s=retry_after_s,
            )

    def _check_targets(self, newcomer: Sequence, forecast: Forecast) -> None:
        level = newcomer.request.service_level
        target_s = self._config.ttft_s if level.ttft_s is None else level.ttft_s
        if target_s is not None and forecast.first_token_s > target_s:
            late_s = forecast.first_token_s - target_s
            raise OverloadedError(
                f"The first token is expected in {forecast.first_token_s:.1f} s and wanted within {target_s:g} s.",
                f"Try again in {max(1.0, late_s):.0f} s, or allow more time (ttft_s).",
                retry_after_s=max(1.0, late_s),
            )
        timeout_s = self._config.queue_timeout_s if level.queue_timeout_s is None else level.queue_timeout_s
        if timeout_s is not None and forecast.start_s > timeout_s:
            late_s = forecast.start_s - timeout_s
            raise OverloadedError(
                f"The request would start in {forecast.start_s:.1f} s and may wait {timeout_s:g} s.",
                f"Try again in {max(1.0, late_s):.0f} s, or allow more time (queue_timeout_s).",
                retry_after_s=max(1.0, late_s),
            )


def timed_out(waited_s: float) -> OverloadedError:
    """The error of a request that has waited too long."""
    return OverloadedError(f"The request has waited {waited_s:.1f} s without starting.", "Try again later.")
