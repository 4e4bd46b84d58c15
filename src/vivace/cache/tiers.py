"""Where blocks go when the executor's pool forgets them, and where they come back from: host memory, then disk.

Blocks are named by the hash of all tokens up to their end (see prefix.py), so what comes back is what would be computed
again, to the bit. Owns the two lower tiers and what moving a block has cost; decides nothing about who runs.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from vivace.cache.disk_tier import DiskTier
from vivace.cache.host_tier import HostTier
from vivace.telemetry.clock import NS_PER_S, Clock, now_ns
from vivace.types.step import BlockContent, BlockMemory

FADE = 0.9  # of a measured cost, for each newer one


@dataclass(slots=True)
class TierCounters:
    """Blocks since the engine began.

    Args:
        num_spilled: went from the pool to host memory.
        num_not_spilled: were forgotten because computing them again costs less than moving them.
        num_wanted: blocks of prompts that the pool did not hold, where tiers were asked.
        num_from_host: of these came back from host memory.
        num_from_disk: of these came back from disk.
        num_preloaded: were brought back to the pool before anybody asked.
        num_preload_hits: of these were used.
    """

    num_spilled: int = 0
    num_not_spilled: int = 0
    num_wanted: int = 0
    num_from_host: int = 0
    num_from_disk: int = 0
    num_preloaded: int = 0
    num_preload_hits: int = 0


@dataclass(frozen=True, slots=True)
class TierStats:
    """A moment's view: TierCounters, and what the tiers hold. Rates are None where there was nothing to rate."""

    num_spilled: int
    num_not_spilled: int
    num_wanted: int
    num_from_host: int
    num_from_disk: int
    num_preloaded: int
    num_preload_hits: int
    host_blocks: int
    host_bytes: int
    disk_blocks: int
    disk_bytes: int

    @property
    def hit_rate(self) -> float | None:
        """Share of the wanted blocks that came back."""
        return (self.num_from_host + self.num_from_disk) / self.num_wanted if self.num_wanted else None

    @property
    def spill_rate(self) -> float | None:
        """Share of the forgotten blocks that were kept here."""
        forgotten = self.num_spilled + self.num_not_spilled
        return self.num_spilled / forgotten if forgotten else None

    @property
    def preload_hit_rate(self) -> float | None:
        """Share of the preloaded blocks that were used."""
        return self.num_preload_hits / self.num_preloaded if self.num_preloaded else None


class BlockTiers:
    """Moves blocks between an executor's pool, host memory and disk. Belongs to the engine's thread.

    Args:
        memory: the executor's.
        host_bytes: of host memory; 0: blocks go to disk at once.
        disk: the last tier; None: what leaves host memory is forgotten.
        clock: measures what moving costs.
    """

    def __init__(
        self, memory: BlockMemory, host_bytes: int, disk: DiskTier | None = None, clock: Clock = now_ns
    ) -> None:
        self._memory = memory
        self.disk = disk
        self.host = HostTier(host_bytes, None if disk is None else disk.put)
        self._clock = clock
        self.counters = TierCounters()
        self._move_s: dict[str, float] = {}

    def move_s(self, tier: str) -> float:
        """Measured seconds to move one block: `spill`, `host` (back from host memory) or `disk`; 0 before the first."""
        return self._move_s.get(tier, 0.0)

    def spill(self, block: int, key: bytes) -> None:
        """Keep what a block of the pool holds."""
        self.counters.num_spilled += 1
        if key in self.host:
            self.host.get(key)
            return
        began_ns = self._clock()
        self.host.put(key, self._memory.read_block(block))
        self._note("spill", began_ns, 1)

    def write(self, block: int, content: BlockContent) -> None:
        """Fill a block of the pool now."""
        self._memory.write_block(block, content)

    def num_stored(self, keys: Sequence[bytes]) -> tuple[int, int]:
        """Length of the longest run of known keys from the first on, and how many of these are on disk alone."""
        num_disk = 0
        for index, key in enumerate(keys):
            if key in self.host:
                continue
            if self.disk is None or key not in self.disk:
                return index, num_disk
            num_disk += 1
        return len(keys), num_disk

    def fetch(self, keys: Sequence[bytes]) -> list[BlockContent]:
        """The contents of the longest run of known keys from the first on."""
        contents = []
        for key in keys:
            content = self.host.get(key)
            if content is not None:
                self.counters.num_from_host += 1
            elif (content := self._from_disk(key)) is not None:
                self.counters.num_from_disk += 1
            else:
                break
            contents.append(content)
        return contents

    def keep_on_disk(self, keys: Sequence[bytes], blocks: Sequence[int]) -> tuple[bytes, ...]:
        """Send blocks to the disk whatever waits there, and pin them.

        Args:
            keys: of a prefix.
            blocks: of the pool that hold its beginning; the rest comes from the tiers.

        Returns:
            The keys of the longest run that is kept, from the first on.
        """
        if self.disk is None:
            return ()
        self.disk.pin(keys)
        num_kept = 0
        for index, key in enumerate(keys):
            if key not in self.disk:
                content = self._memory.read_block(blocks[index]) if index < len(blocks) else self.host.get(key)
                if content is None:
                    break
                self.disk.put(key, content, must=True)
            num_kept += 1
        self.disk.unpin(keys[num_kept:])
        return tuple(keys[:num_kept])

    def read_ahead(self, keys: Sequence[bytes], then: Callable[[dict[bytes, BlockContent]], None]) -> bool:
        """Read blocks from disk in the background; `then` is called in another thread. False: none is on disk alone."""
        num_known, num_disk = self.num_stored(keys)
        if not num_disk or self.disk is None:
            return False
        self.disk.read_ahead([key for key in keys[:num_known] if key not in self.host], then)
        return True

    def forget_host(self) -> None:
        """Trust nothing in host memory any more."""
        self.host.clear()

    def stats(self) -> TierStats:
        """The numbers of this moment."""
        disk = self.disk
        return TierStats(
            **asdict(self.counters),
            host_blocks=len(self.host),
            host_bytes=self.host.num_bytes,
            disk_blocks=0 if disk is None else len(disk),
            disk_bytes=0 if disk is None else disk.num_bytes,
        )

    def close(self) -> None:
        """Write what waits for the disk."""
        if self.disk is not None:
            self.disk.close()

    def _from_disk(self, key: bytes) -> BlockContent | None:
        if self.disk is None:
            return None
        began_ns = self._clock()
        content = self.disk.get(key)
        if content is not None:
            self._note("disk", began_ns, 1)
            self.host.put(key, content)
        return content

    def _note(self, tier: str, began_ns: int, num_blocks: int) -> None:
        now_s = (self._clock() - began_ns) / NS_PER_S / num_blocks
        before_s = self._move_s.get(tier, now_s)
        self._move_s[tier] = FADE * before_s + (1 - FADE) * now_s
