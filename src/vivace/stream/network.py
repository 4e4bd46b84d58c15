"""Whether the network of one reader is poor, from what was measured of its connection. Decides; measures nothing.

On a poor network sends are fewer and larger: every packet costs a wait there, and text that comes in larger pieces
leaves the reader's own buffer fuller between them.
"""

from dataclasses import dataclass

from vivace.types.errors import ConfigError


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """When a network is poor, and what is done then.

    Args:
        poor_rtt_s: round trips longer than this.
        poor_wait_s: sends that had to wait for the connection longer than this.
        good_share: it is good again once both are below this share of those limits ...
        good_after_s: ... and have been for so long.
        send_every_s: time between two sends on a poor network; 0: it is treated as a good one.
    """

    poor_rtt_s: float = 0.3
    poor_wait_s: float = 0.2
    good_share: float = 0.6
    good_after_s: float = 5.0
    send_every_s: float = 0.25

    def __post_init__(self) -> None:
        for name in ("poor_rtt_s", "poor_wait_s"):
            if not 0 < getattr(self, name) < 3600:
                raise ConfigError(f"{name} is {getattr(self, name)}.", "Give seconds above 0.")
        if not 0 < self.good_share <= 1:
            raise ConfigError(f"good_share is {self.good_share}.", "Give a share above 0, at most 1.")
        if not (0 <= self.good_after_s < 3600 and 0 <= self.send_every_s <= 10):
            raise ConfigError("good_after_s or send_every_s is out of range.", "Give 0 to 3600 and 0 to 10 seconds.")


SMOOTHING = 0.25
"""Weight of the newest round trip."""


class NetworkHealth:
    """The state of one connection: good, or poor. The caller tells the time."""

    __slots__ = ("_config", "_fine_since_s", "is_poor", "rtt_s")

    def __init__(self, config: NetworkConfig) -> None:
        self._config = config
        self._fine_since_s: float | None = None
        self.is_poor = False
        self.rtt_s: float | None = None

    @property
    def send_every_s(self) -> float:
        """Least time between two sends."""
        return self._config.send_every_s if self.is_poor else 0.0

    def note(self, now_s: float, rtt_s: float | None, wait_s: float) -> bool:
        """Take a measurement; whether the state has changed.

        Args:
            now_s: the time.
            rtt_s: a round trip, where one is known.
            wait_s: longest that a send has waited since the last measurement.
        """
        if rtt_s is not None:
            self.rtt_s = rtt_s if self.rtt_s is None else self.rtt_s + SMOOTHING * (rtt_s - self.rtt_s)
        config, rtt = self._config, self.rtt_s or 0.0
        if not self.is_poor:
            self.is_poor = rtt > config.poor_rtt_s or wait_s > config.poor_wait_s
            self._fine_since_s = None
            return self.is_poor
        is_fine = rtt < config.good_share * config.poor_rtt_s and wait_s < config.good_share * config.poor_wait_s
        if not is_fine:
            self._fine_since_s = None
            return False
        if self._fine_since_s is None:
            self._fine_since_s = now_s
        self.is_poor = now_s - self._fine_since_s < config.good_after_s
        return not self.is_poor
