"""What streams tell about themselves, for metrics: a protocol, and the meter that counts nothing."""

from typing import Protocol


class StreamMeter(Protocol):
    """Told by every stream of a server. All times are seconds."""

    def started(self) -> None:
        """A request was accepted."""
        ...

    def first_token(self, wait_s: float) -> None:
        """The first token came after so long."""
        ...

    def tokens(self, count: int, gap_s: float) -> None:
        """So many tokens came together, so long after those before."""
        ...

    def ended(self, status: str, num_tokens: int, decode_s: float) -> None:
        """The terminal event was written; `decode_s` from the first token to the last."""
        ...

    def reader_came(self, is_resume: bool) -> None:
        """A reader attached, at the beginning or after an event that it has."""
        ...

    def reader_left(self, is_early: bool) -> None:
        """A reader went, before the end or at it."""
        ...

    def reported(
        self, buffer_s: float | None, rtt_s: float | None, num_stalls: int, utilisation: float | None = None
    ) -> None:
        """A reader told of itself; `utilisation`: how full its playback buffer is, 0 to 1."""
        ...

    def measured(self, backlog_s: float, rtt_s: float | None) -> None:
        """A reader's connection was looked at: reading time of the text it has not taken, round trip time."""
        ...


class NoMeter:
    """Counts nothing."""

    def started(self) -> None:
        """Count nothing."""

    def first_token(self, wait_s: float) -> None:
        """Count nothing."""

    def tokens(self, count: int, gap_s: float) -> None:
        """Count nothing."""

    def ended(self, status: str, num_tokens: int, decode_s: float) -> None:
        """Count nothing."""

    def reader_came(self, is_resume: bool) -> None:
        """Count nothing."""

    def reader_left(self, is_early: bool) -> None:
        """Count nothing."""

    def reported(
        self, buffer_s: float | None, rtt_s: float | None, num_stalls: int, utilisation: float | None = None
    ) -> None:
        """Count nothing."""

    def measured(self, backlog_s: float, rtt_s: float | None) -> None:
        """Count nothing."""
