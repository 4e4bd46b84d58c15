"""Blocks are kept for the attention they got; decisions fall on fixed positions and read nothing else."""

import numpy as np
import pytest

from vivace.cache.block_table import BlockTable
from vivace.cache.policies import num_blocks_held, parse_policy
from vivace.cache.retention import Pruning, Retention
from vivace.types.errors import ConfigError

PRUNING = Pruning(first=96, every=32, keys=16, window=32)


def table_of(count: int) -> BlockTable:
    table = BlockTable()
    table.extend(range(100, 100 + count))
    return table


def masses(*blocks: float) -> np.ndarray:
    return np.array(blocks, np.float32)


def test_sinks_window_and_the_block_attended_most_stay() -> None:
    table, retention = table_of(8), Retention(PRUNING)  # two blocks are there for what comes after
    retention.note(94, masses(0, 0.1, 0.6, 0.2, 0.05, 0.05, 0, 0))
    retention.note(95, masses(0, 0.3, 0.0, 0.3, 0.2, 0.2, 0, 0))
    assert retention.decide(table) == [101, 103]
    assert table.entries.tolist() == [100, 102, 104, 105, 106, 107]
    assert (table.num_removed, table.num_slots, table.num_held) == (2, 128, 6)
    assert retention.next_decision == 128


def test_only_rows_just_before_a_decision_are_observed() -> None:
    retention = Retention(PRUNING)
    assert retention.observed(0, 60) == range(80, 60) and not retention.observed(0, 60)
    assert retention.observed(70, 96) == range(80, 96)
    assert retention.observed(95, 96) == range(95, 96)


def test_a_row_that_is_computed_again_counts_once_and_what_was_worth_much_fades() -> None:
    table, retention = table_of(8), Retention(PRUNING)
    retention.note(95, masses(0, 9, 0, 0, 0, 0))
    retention.note(95, masses(0, 0, 0, 1, 0, 0))
    retention.decide(table)
    assert 103 in table.entries and 101 not in table.entries
    # Block 103 is worth half a unit now; 104 and 105 leave the window and compete with it.
    retention.note(127, masses(0, 0.0, 0.4, 0.3, 0, 0))
    retention.decide(table)
    assert table.entries.tolist() == [100, 103, 106, 107]


def test_of_equals_the_later_stay() -> None:
    table, retention = table_of(6), Retention(PRUNING)
    retention.decide(table)
    assert table.entries.tolist() == [100, 103, 104, 105]


def test_holes_close_and_a_fork_goes_its_own_way() -> None:
    table, retention = table_of(6), Retention(PRUNING)
    table.drop(range(1, 3))
    twin = retention.fork()
    twin.note(95, masses(0, 0, 0, 1, 0, 0))
    retention.decide(table)
    assert table.entries.tolist() == [100, 103, 104, 105]
    assert twin.next_decision == 96
    assert table.clear() == [100, 103, 104, 105]
    assert table.num_slots == table.num_removed == table.num_held == 0


@pytest.mark.parametrize("text", ["keytokens:32:16:16", "adaptive:32:16:2:64:16", "keytokens", "adaptive"])
def test_memory_is_bounded_however_long_the_text(text: str) -> None:
    policy = parse_policy(text)
    assert policy.pruning is not None
    held = [num_blocks_held(policy, length) for length in range(1, 6000, 7)]
    assert max(held) * 16 <= policy.most_held + 16
    assert held[:2] == [1, 1]


@pytest.mark.parametrize("numbers", [(8, 32, 16, 32), (96, 8, 16, 32), (96, 32, 3, 32), (96, 32, 16, 0)])
def test_numbers_that_are_no_whole_blocks_are_refused(numbers: tuple[int, int, int, int]) -> None:
    with pytest.raises(ConfigError):
        Pruning(*numbers)
