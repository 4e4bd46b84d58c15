"""Which positions a row may see, and which KV blocks nobody will ever see again: one row of a table a policy.

A policy is a function of a row's position alone, never of what shares its batch or how its prompt was cut: so answers
stay the same to the bit, and a block may be given back as soon as the sequence has gone past it. Positions keep their
rotary angles: a policy saves memory and time, it does not stretch the context a model was trained for.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vivace.types.errors import ConfigError
from vivace.types.step import BLOCK_SIZE

Positions = NDArray[np.int32]
DEFAULT_SINKS = 4  # positions that later rows lean on whatever they say (Xiao et al., 2024, section 3.1)


class KvPolicy(Protocol):
    """Which keys rows see."""

    def sight(self, positions: Positions) -> tuple[Positions, Positions] | None:
        """`window_starts` and `sink_ends` of a ForwardBatch for rows at these positions; None: all before them."""
        ...

    def dead_blocks(self, num_computed: int) -> range:
        """Table entries that no row from position `num_computed` on sees: their blocks may go back to the pool."""
        ...


@dataclass(frozen=True, slots=True)
class FullPolicy:
    """Every row sees all before it."""

    def sight(self, positions: Positions) -> None:
        """All."""

    def dead_blocks(self, num_computed: int) -> range:
        """None."""
        return range(0)


FULL_POLICY = FullPolicy()


@dataclass(frozen=True, slots=True)
class WindowPolicy:
    """From position `full_until` on, rows see the first `sinks` positions and the last `window`, their own included.

    With full_until 0 it is StreamingLLM's window (Xiao et al., 2024), without its shifted positions.
    """

    window: int
    sinks: int = DEFAULT_SINKS
    full_until: int = 0

    def __post_init__(self) -> None:
        for name, least in (("window", 1), ("sinks", 0), ("full_until", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"A window policy's {name} is {getattr(self, name)}.", f"Give at least {least}.")

    def sight(self, positions: Positions) -> tuple[Positions, Positions]:
        """The window and the sinks of each row."""
        starts = np.where(positions < self.full_until, 0, np.maximum(positions - self.window + 1, 0))
        return starts.astype(np.int32), np.full(len(positions), self.sinks, np.int32)

    def dead_blocks(self, num_computed: int) -> range:
        """Blocks between the sinks' last and the window's first."""
        if num_computed < self.full_until:
            return range(0)
        first = -(-self.sinks // BLOCK_SIZE)
        return range(first, max(first, (num_computed - self.window + 1) // BLOCK_SIZE))


def _full() -> KvPolicy:
    return FULL_POLICY


def _window(window: int = 1024, sinks: int = DEFAULT_SINKS) -> KvPolicy:
    return WindowPolicy(window, sinks)


def _adaptive(full_until: int = 512, window: int = 256, sinks: int = DEFAULT_SINKS) -> KvPolicy:
    """The first two steps of the chapter's tree (18.1.2): all under 512 tokens, a window of 256 above."""
    return WindowPolicy(window, sinks, full_until)


POLICIES: dict[str, Callable[..., KvPolicy]] = {"full": _full, "window": _window, "adaptive": _adaptive}
"""Name to a maker that takes the policy's numbers, all with defaults."""


def parse_policy(text: str) -> KvPolicy:
    """A policy from its name and numbers: `full`, `window:WINDOW:SINKS`, `adaptive:FULL_UNTIL:WINDOW:SINKS`.

    Numbers left out have their defaults.

    Raises:
        ConfigError: there is no such policy, or its numbers are none, too many or out of range.
    """
    name, *numbers = text.split(":")
    if name not in POLICIES:
        raise ConfigError(f"There is no KV policy {name!r}.", f"Known are: {', '.join(POLICIES)}.")
    if not all(number.isascii() and number.isdigit() for number in numbers):
        raise ConfigError(f"{text!r} is no KV policy.", "Write it as in window:1024:4.")
    try:
        return POLICIES[name](*(int(number) for number in numbers))
    except TypeError:
        raise ConfigError(
            f"{text!r} has too many numbers for a {name} policy.", "Write it as in window:1024:4."
        ) from None


def num_blocks_held(policy: KvPolicy, num_tokens: int) -> int:
    """KV blocks that a sequence of `num_tokens` computed tokens holds once its dead ones are given back."""
    return -(-num_tokens // BLOCK_SIZE) - len(policy.dead_blocks(num_tokens))
