"""Finds and publishes the computed prefixes of sequences: the bridge between their tokens and the block pools' keys."""

import hashlib
from collections.abc import Callable
from collections.abc import Sequence as Rows
from dataclasses import dataclass
from itertools import accumulate, takewhile

import numpy as np

from vivace.cache.policies import EVERYTHING, KvPolicy, parse_policy
from vivace.cache.prefix import KeyChange, extend_keys
from vivace.cache.retention import OBSERVED_ROWS
from vivace.schedule.layer_blocks import DEAD, MISSING, LayerBlocks
from vivace.schedule.sequence import Sequence
from vivace.types.request import GenerationRequest
from vivace.types.step import BLOCK_SIZE

Stored = Callable[[bytes, int], bool]
"""Whether a tier has the block of a key and a kind of layers."""


@dataclass(frozen=True, slots=True)
class Found:
    """A prefix that is computed already.

    `num_here`: so many blocks of it are in the pools; the rest is in tiers. `blocks` are those of each kind of layers,
    DEAD where no row sees one and MISSING where it has to be brought.
    """

    keys: Rows[bytes]
    num_here: int
    blocks: tuple[list[int], ...]

    @property
    def num_tokens(self) -> int:
        """Tokens of the prefix."""
        return len(self.keys) * BLOCK_SIZE


class PrefixIndex:
    """Names prefixes and finds them; a tenant's prefixes are found by that tenant alone.

    Blocks of different policies have different names from where their values begin to differ.

    Args:
        kinds: the blocks of each kind of layers.
        default: the policy of requests that name none.
        enabled: False: nothing is found and nothing published.
    """

    def __init__(self, kinds: Rows[LayerBlocks], default: KvPolicy, *, enabled: bool) -> None:
        self._kinds = kinds
        self._default = default
        self._enabled = enabled

    def keys_of(self, sequence: Sequence) -> list[bytes]:
        """Keys of the full blocks of a waiting sequence that may be found, one token at least left to compute.

        What a policy decides by has to be observed: under one that decides, the rows before its first decision are
        computed anew, and what follows on it is never found.
        """
        if not self._enabled:
            return []
        self._name(sequence)
        pruning = sequence.policy.pruning
        most = sequence.num_known - 1 if pruning is None else min(sequence.num_known - 1, pruning.first - OBSERVED_ROWS)
        return sequence.keys[: most // BLOCK_SIZE]

    def keys_of_request(self, request: GenerationRequest) -> list[bytes]:
        """Keys of the full blocks of a prompt that nobody has asked yet."""
        keys: list[bytes] = []
        if self._enabled:
            policy = self._default if request.kv_policy is None else parse_policy(request.kv_policy)
            tokens = np.array(request.prompt_ids, dtype=np.int32)
            extend_keys(keys, tokens, tenant_salt(request.service_level.tenant), _change(policy))
        return keys

    def num_coming(self, sequence: Sequence, num_found: int, other: Sequence) -> int:
        """Blocks after the first `num_found` of a waiting sequence that another, running one will soon let it find."""
        has_more = other.num_pending > 1 and other.num_published <= num_found  # else its blocks cannot be found
        if other.policy.pruning is not None or not has_more:
            return 0
        pairs = zip(self.keys_of(sequence)[num_found:], other.keys[num_found:], strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))

    def publish(self, sequence: Sequence) -> None:
        """Let others find the blocks that are full now."""
        num_full = sequence.num_computed // BLOCK_SIZE
        pruning = sequence.policy.pruning
        end = num_full if pruning is None else min(num_full, pruning.first // BLOCK_SIZE)
        if self._enabled and end > sequence.num_published:
            self._name(sequence)
            for kind in self._kinds:
                kind.publish(sequence, sequence.num_published, end)
        sequence.num_published = num_full

    def _name(self, sequence: Sequence) -> None:
        salt = tenant_salt(sequence.request.service_level.tenant)
        extend_keys(sequence.keys, sequence.tokens, salt, _change(sequence.policy))

    def longest(self, keys: Rows[bytes], policy: KvPolicy, stored: Stored | None = None) -> int:
        """Blocks of the longest prefix that every kind of layers has, less what its rows no longer see.

        Args:
            keys: of full blocks from the first on.
            policy: of the sequence.
            stored: blocks that count although no pool has them.
        """
        count = len(keys)
        missing: list[tuple[KvPolicy, list[int]]] = []
        for number, kind in enumerate(self._kinds):
            if not kind.is_bounded(policy):
                count = len(kind.pool.find(keys[:count]))
                while stored is not None and count < len(keys) and _has(kind, keys[count], number, stored):
                    count += 1
        for number, kind in enumerate(self._kinds):
            if kind.is_bounded(policy):
                lost = (
                    block < 0 and (stored is None or not stored(key, number))
                    for key, block in zip(keys[:count], kind.pool.find_each(keys[:count]), strict=True)
                )
                missing.append((kind.policy(policy), [0, *accumulate(lost)]))
        while count and not all(_is_covered(rows, misses, count) for rows, misses in missing):
            count -= 1
        return count

    def take(self, keys: Rows[bytes], policy: KvPolicy, num_here: int) -> Found:
        """The blocks of a prefix that `longest` has found, `num_here` of them in the pools."""
        blocks = []
        for kind in self._kinds:
            mine = [MISSING if block < 0 else block for block in kind.pool.find_each(keys)]
            for block in kind.policy(policy).dead_blocks(len(keys) * BLOCK_SIZE):
                mine[block] = DEAD
            blocks.append(mine)
        return Found(keys, num_here, tuple(blocks))


def _has(kind: LayerBlocks, key: bytes, number: int, stored: Stored) -> bool:
    return bool(kind.pool.find((key,))) or stored(key, number)


def _is_covered(policy: KvPolicy, misses: list[int], count: int) -> bool:
    """Whether all blocks of a prefix are known but those that are dead; `misses` counts unknown ones before each."""
    dead = policy.dead_blocks(count * BLOCK_SIZE)
    stop = min(max(dead.stop, dead.start), count)
    return misses[min(dead.start, count)] == 0 and misses[count] == misses[stop]


def _change(policy: KvPolicy) -> KeyChange | None:
    if policy.plain_until >= EVERYTHING:
        return None
    return KeyChange(policy.plain_until // BLOCK_SIZE, hashlib.blake2b(policy.name.encode(), digest_size=16).digest())


def tenant_salt(tenant: str) -> bytes:
    """The seed of a tenant's key chain; nobody can time from outside what another tenant has asked."""
    return hashlib.blake2b(tenant.encode("utf-8", "surrogatepass"), digest_size=16).digest() if tenant else b""
