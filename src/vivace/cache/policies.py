"""Which positions a row may see, and which KV blocks nobody will ever see again: one row of a table a policy.

A policy is a function of a row's position and of its sequence's own tokens, never of what shares its batch or how its
prompt was cut: so answers stay the same to the bit, and a block may be given back as soon as the sequence has gone past
it. Positions keep their rotary angles: a policy saves memory and time, it does not stretch the context a model was
trained for.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vivace.cache.retention import Pruning
from vivace.types.errors import ConfigError
from vivace.types.step import BLOCK_SIZE

Positions = NDArray[np.int32]
DEFAULT_SINKS = 4  # positions that later rows lean on whatever they say (Xiao et al., 2024, section 3.1)
EVERYTHING = 1 << 60  # more positions than any sequence has


class KvPolicy(Protocol):
    """Which keys rows see."""

    @property
    def name(self) -> str:
        """Says all about it: equal names, equal values."""
        ...

    @property
    def plain_until(self) -> int:
        """Rows at positions below it see everything: they compute what they compute under every other policy."""
        ...

    @property
    def most_held(self) -> int:
        """Bounds the positions whose blocks a sequence holds between two steps; EVERYTHING where nothing does."""
        ...

    @property
    def pruning(self) -> Pruning | None:
        """When blocks are taken out by the attention they got; None: never."""
        ...

    def sight(self, positions: Positions) -> tuple[Positions, Positions] | None:
        """`window_starts` and `sink_ends` of a ForwardBatch for rows at these positions; None: all before them."""
        ...

    def dead_blocks(self, num_computed: int) -> range:
        """Table entries that no row from position `num_computed` on sees: their blocks may go back to the pool."""
        ...


@dataclass(frozen=True, slots=True)
class FullPolicy:
    """Every row sees all before it."""

    name: str = "full"
    plain_until: int = EVERYTHING
    most_held: int = EVERYTHING
    pruning: None = None

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
    pruning: None = None

    def __post_init__(self) -> None:
        for name, least in (("window", 1), ("sinks", 0), ("full_until", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"A window policy's {name} is {getattr(self, name)}.", f"Give at least {least}.")

    @property
    def name(self) -> str:
        """As it is written."""
        return f"adaptive:{self.full_until}:{self.window}:{self.sinks}:0"

    @property
    def plain_until(self) -> int:
        """As long as the window has not begun to move."""
        return max(self.full_until, self.window)

    @property
    def most_held(self) -> int:
        """Sinks and window, or all that was seen before the window began; a block more at either end."""
        return max(self.full_until, self.sinks + self.window) + 2 * BLOCK_SIZE

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


@dataclass(frozen=True, slots=True)
class KeyTokenPolicy:
    """Rows see all that is left in the table, which is thinned out by attention (cache/retention.py).

    `before`: what rows before the first decision see.
    """

    name: str
    pruning: Pruning
    before: FullPolicy | WindowPolicy = FULL_POLICY

    @property
    def plain_until(self) -> int:
        """The first decision, or what comes before it."""
        return min(self.before.plain_until, self.pruning.first)

    @property
    def most_held(self) -> int:
        """What is there just before a decision."""
        if isinstance(self.before, FullPolicy):
            return self.pruning.most_held
        kept = self.pruning.sinks + self.pruning.keys + self.pruning.window + self.pruning.every
        return max(self.before.most_held, kept)

    def sight(self, positions: Positions) -> tuple[Positions, Positions] | None:
        """All that is in the table, once the first decision is behind."""
        sight = self.before.sight(positions)
        if sight is None:
            return None
        before = positions < self.pruning.first
        return np.where(before, sight[0], np.int32(0)), np.where(before, sight[1], np.int32(0))

    def dead_blocks(self, num_computed: int) -> range:
        """As before the first decision; after it blocks go by decisions alone."""
        return self.before.dead_blocks(num_computed) if num_computed <= self.pruning.first else range(0)


def _full() -> KvPolicy:
    return FULL_POLICY


def _window(window: int = 1024, sinks: int = DEFAULT_SINKS) -> KvPolicy:
    return WindowPolicy(window, sinks)


def _key_tokens(keys: int = 768, window: int = 256, every: int = 256) -> KvPolicy:
    """Decisions begin when keys, window and one interval are full."""
    keys, window, every = _blocks(keys), max(_blocks(window), BLOCK_SIZE), max(_blocks(every), BLOCK_SIZE)
    pruning = Pruning(BLOCK_SIZE + keys + window + every, every, keys, window)
    return KeyTokenPolicy(f"keytokens:{keys}:{window}:{every}", pruning)


def _adaptive(
    full_until: int = 512, window: int = 256, sinks: int = DEFAULT_SINKS, sparse_from: int = 2048, keys: int = 768
) -> KvPolicy:
    """The chapter's tree (18.1.2): all under 512 tokens, a window of 256 above, and from 2,048 on key tokens as well.

    `sparse_from` 0 leaves the third step out.
    """
    narrow = WindowPolicy(window, sinks, full_until)
    if sparse_from == 0:
        return narrow
    first, keys, recent = max(_blocks(sparse_from), BLOCK_SIZE), _blocks(keys), max(_blocks(window), BLOCK_SIZE)
    kept_sinks = max(_blocks(sinks), BLOCK_SIZE)
    name = f"adaptive:{full_until}:{window}:{sinks}:{first}:{keys}"
    return KeyTokenPolicy(name, Pruning(first, recent, keys, recent, kept_sinks), narrow)


def _blocks(positions: int) -> int:
    """Whole blocks that hold so many positions, in positions."""
    return -(-positions // BLOCK_SIZE) * BLOCK_SIZE


POLICIES: dict[str, Callable[..., KvPolicy]] = {
    "full": _full,
    "window": _window,
    "keytokens": _key_tokens,
    "adaptive": _adaptive,
}
"""Name to a maker that takes the policy's numbers, all with defaults."""


def parse_policy(text: str) -> KvPolicy:
    """A policy from its name and numbers; those left out have their defaults.

    `full`, `window:WINDOW:SINKS`, `keytokens:KEYS:WINDOW:EVERY`, `adaptive:FULL_UNTIL:WINDOW:SINKS:SPARSE_FROM:KEYS`.

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


def num_tokens_gone(policy: KvPolicy, num_tokens: int) -> int:
    """How many of `num_tokens` computed tokens have lost their keys and values to a policy."""
    return max(0, num_tokens - num_blocks_held(policy, num_tokens) * BLOCK_SIZE)


def num_blocks_held(policy: KvPolicy, num_tokens: int) -> int:
    """KV blocks that a sequence of `num_tokens` computed tokens holds once those of no more use are given back."""
    num_blocks, pruning = -(-num_tokens // BLOCK_SIZE), policy.pruning
    if pruning is None or num_tokens < pruning.first:
        return num_blocks - len(policy.dead_blocks(max(0, num_tokens // BLOCK_SIZE * BLOCK_SIZE - 1)))
    most = (pruning.sinks + pruning.keys + pruning.window) // BLOCK_SIZE
    held, decision = pruning.first // BLOCK_SIZE - len(policy.dead_blocks(pruning.first - 1)), pruning.first
    while True:
        held = min(held, most)
        if decision + pruning.every > num_tokens:
            return held + num_blocks - decision // BLOCK_SIZE
        held, decision = held + pruning.every // BLOCK_SIZE, decision + pruning.every
