"""Finds and publishes the computed prefixes of sequences: the bridge between their tokens and the block pool's keys."""

import hashlib

import numpy as np

from vivace.cache.block_pool import BlockPool
from vivace.cache.prefix import extend_keys
from vivace.schedule.sequence import Sequence
from vivace.types.request import GenerationRequest
from vivace.types.step import BLOCK_SIZE


class PrefixIndex:
    """Writes the keys of sequences; a tenant's prefixes are found by that tenant alone.

    Args:
        pool: the blocks.
        enabled: False: nothing is found and nothing published.
    """

    def __init__(self, pool: BlockPool, *, enabled: bool) -> None:
        self._pool = pool
        self._enabled = enabled

    def find(self, sequence: Sequence) -> list[int]:
        """Blocks that hold the first tokens of the sequence already; at least one token is left to compute."""
        return self._pool.find(self.keys_of(sequence))

    def keys_of(self, sequence: Sequence) -> list[bytes]:
        """Keys of the full blocks of a waiting sequence, less the one that would leave nothing to compute."""
        if not self._enabled:
            return []
        extend_keys(sequence.keys, sequence.tokens, tenant_salt(sequence.request.service_level.tenant))
        return sequence.keys[: (sequence.num_known - 1) // BLOCK_SIZE]

    def keys_of_request(self, request: GenerationRequest) -> list[bytes]:
        """Keys of the full blocks of a prompt that nobody has asked yet."""
        keys: list[bytes] = []
        if self._enabled:
            extend_keys(keys, np.array(request.prompt_ids, dtype=np.int32), tenant_salt(request.service_level.tenant))
        return keys

    def publish(self, sequence: Sequence) -> None:
        """Let others find the blocks that are full now."""
        num_full = sequence.num_computed // BLOCK_SIZE
        if self._enabled:
            extend_keys(sequence.keys, sequence.tokens, tenant_salt(sequence.request.service_level.tenant))
            for depth in range(sequence.num_published, num_full):
                self._pool.publish(int(sequence.table.entries[depth]), sequence.keys[depth], depth)
        sequence.num_published = num_full


def tenant_salt(tenant: str) -> bytes:
    """The seed of a tenant's key chain; nobody can time from outside what another tenant has asked."""
    return hashlib.blake2b(tenant.encode("utf-8", "surrogatepass"), digest_size=16).digest() if tenant else b""
