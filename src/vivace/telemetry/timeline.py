"""Where the time of one request went: stages that follow each other without gap, so they sum to end-to-end."""

from vivace.telemetry.clock import NS_PER_S


class StageTimeline:
    """Stages in the order they were entered; each ends where the next begins.

    Args:
        stage: name of the first stage.
        start_ns: clock when it began.
    """

    __slots__ = ("_end_ns", "_marks")

    def __init__(self, stage: str, start_ns: int) -> None:
        self._marks: list[tuple[str, int]] = [(stage, start_ns)]
        self._end_ns: int | None = None

    def enter(self, stage: str, at_ns: int) -> None:
        """End the current stage and begin the next; ignored once the timeline has ended."""
        if self._end_ns is None:
            self._marks.append((stage, at_ns))

    def end(self, at_ns: int) -> None:
        """End the last stage; only the first call counts."""
        if self._end_ns is None:
            self._end_ns = at_ns

    @property
    def has_ended(self) -> bool:
        """Whether `end` was called."""
        return self._end_ns is not None

    def seconds(self, now_ns: int | None = None) -> dict[str, float]:
        """Seconds spent in each stage, a stage entered twice summed; the last one up to its end, or up to `now_ns`."""
        end_ns = self._end_ns if self._end_ns is not None else now_ns
        starts = [at_ns for _, at_ns in self._marks]
        ends = [*starts[1:], starts[-1] if end_ns is None else end_ns]
        totals: dict[str, float] = {}
        for (stage, start_ns), stop_ns in zip(self._marks, ends, strict=True):
            totals[stage] = totals.get(stage, 0.0) + (stop_ns - start_ns) / NS_PER_S
        return totals
