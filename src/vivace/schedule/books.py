"""The books of a scheduler, counted for its statistics and audited in tests after every step."""

from collections import Counter
from collections.abc import Iterable, Mapping

from vivace.cache.block_pool import BlockPool
from vivace.schedule.blocks import BlockDesk
from vivace.schedule.group import RequestGroup
from vivace.schedule.sequence import Sequence, SequenceState
from vivace.types.step import BLOCK_SIZE


def check_books(blocks: BlockDesk, running: Mapping[int, Sequence], groups: Iterable[RequestGroup]) -> None:
    """Raise AssertionError unless blocks, tables and states agree."""
    tables = ([entry.table for entry in running.values()], [entry.local_table for entry in running.values()])
    for pool, mine in zip(blocks.pools, tables, strict=False):
        pool.check()
        holders = Counter(block for table in mine for block in table.entries.tolist())
        for block, count in enumerate(pool.num_holders()):
            assert holders[block] == count, f"block {block} counts {count} holders, {holders[block]} tables have it"
        assert all(table.num_held == (table.entries >= 0).sum() for table in mine)
    for group in groups:
        for sequence in group.live.values():
            is_running = sequence.sequence_id in running
            assert is_running == (sequence.state is SequenceState.RUNNING)
            assert is_running or (sequence.table.num_blocks == 0 and sequence.num_computed == 0)
            assert sequence.num_computed < sequence.num_known <= sequence.max_known
            assert sequence.num_computed <= sequence.table.num_slots


def count_kv_tokens(pool: BlockPool, running: Iterable[Sequence]) -> tuple[int, int]:
    """Known tokens that have a slot, and slots of held blocks; shared blocks count once."""
    reserved = pool.num_held * BLOCK_SIZE
    return reserved - sum(max(0, entry.table.num_slots - entry.num_known) for entry in running), reserved
