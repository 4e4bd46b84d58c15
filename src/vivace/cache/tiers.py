"""Where blocks go when the executor's pool forgets them, and where they come back from: host memory, then disk.

Blocks are named by the hash of all tokens up to their end (see prefix.py), so what comes back is what would be computed
again, to the bit; those of local layers have names of their own, made of these. Owns the two lower tiers and what
moving has cost; decides nothing about who runs.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from vivace.cache.disk_tier import DiskTier
from vivace.cache.host_tier import HostTier
from vivace.telemetry.clock import NS_PER_S, Clock, now_ns
from vivace.types.step import BlockContent, BlockMemory, Executor

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


class LocalMemory:
    """The blocks of an executor's local layers."""

    def __init__(self, executor: Executor) -> None:
        self.bytes_per_block = executor.bytes_per_local_block
        self.read_block = executor.read_local_block
        self.write_block = executor.write_local_block


def name_of(key: bytes, kind: int) -> bytes:
    """The name of a block in the tiers.

    Args:
        key: of the tokens up to its end.
        kind: 0: of the layers that follow a sequence's policy; 1: of local layers.
    """
    return hashlib.blake2b(key, digest_size=16, person=b"local").digest() if kind else key


class BlockTiers:
    """Moves blocks between an executor's pools, host memory and disk. Belongs to the engine's thread.

    Args:
        memory: the executor's.
        host_bytes: of host memory; 0: blocks go to disk at once.
        disk: the last tier; None: what leaves host memory is forgotten.
        clock: measures what moving costs.
        local: the memory of local layers, where these have blocks of their own.
    """

    def __init__(
        self,
        memory: BlockMemory,
        host_bytes: int,
        disk: DiskTier | None = None,
        clock: Clock = now_ns,
        *,
        local: BlockMemory | None = None,
    ) -> None:
        self._memories = (memory,) if local is None else (memory, local)
        self.disk = disk
        self.host = HostTier(host_bytes, None if disk is None else disk.put)
        self._clock = clock
        self.counters = TierCounters()
        self._byte_s: dict[str, float] = {}

    def move_s(self, tier: str, kind: int = 0) -> float:
        """Measured seconds to move one block: `spill`, `host` (back from host memory) or `disk`; 0 before the first."""
        return self._byte_s.get(tier, 0.0) * self._memories[kind].bytes_per_block

    def spill(self, block: int, key: bytes, kind: int = 0) -> None:
        """Keep what a block of a pool holds."""
        self.counters.num_spilled += 1
        if key in self.host:
            self.host.get(key)
            return
        began_ns = self._clock()
        content = self._memories[kind].read_block(block)
        self.host.put(key, content)
        self._note("spill", began_ns, content)

    def write(self, block: int, content: BlockContent, kind: int = 0) -> None:
        """Fill a block of a pool now."""
        self._memories[kind].write_block(block, content)

    def tier_of(self, key: bytes) -> str | None:
        """Where a block is: `host`, or else `disk`; None: nowhere."""
        if key in self.host:
            return "host"
        return "disk" if self.disk is not None and key in self.disk else None

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

    def keep_on_disk(self, keys: Sequence[bytes], blocks: Sequence[int], kind: int = 0) -> tuple[bytes, ...]:
        """Send blocks to the disk whatever waits there, and pin them.

        Args:
            keys: their names.
            blocks: of the pool; -1 for those that are in the tiers.
            kind: of layers.

        Returns:
            The keys of the longest run that is kept, from the first on.
        """
        if self.disk is None:
            return ()
        self.disk.pin(keys)
        num_kept = 0
        for index, key in enumerate(keys):
            if key not in self.disk:
                block = blocks[index]
                content = self._memories[kind].read_block(block) if block >= 0 else self.host.get(key)
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
            self._note("disk", began_ns, content)
            self.host.put(key, content)
        return content

    def _note(self, tier: str, began_ns: int, content: BlockContent) -> None:
        now_s = (self._clock() - began_ns) / NS_PER_S / content.nbytes
        self._byte_s[tier] = FADE * self._byte_s.get(tier, now_s) + (1 - FADE) * now_s
