"""Block tables keep the order of blocks and grow; prefix keys name contents from the start on."""

import numpy as np
import pytest

from vivace.cache.block_table import BlockTable, TableBoard, num_blocks_for
from vivace.cache.prefix import extend_keys


@pytest.mark.parametrize(("num_tokens", "num_blocks"), [(0, 0), (1, 1), (16, 1), (17, 2), (160, 10)])
def test_blocks_that_tokens_fill(num_tokens: int, num_blocks: int) -> None:
    assert num_blocks_for(num_tokens) == num_blocks


def test_a_table_keeps_order_while_it_grows_and_gives_everything_back() -> None:
    table = BlockTable()
    blocks = list(range(100, 140))
    for start in range(0, 40, 5):
        table.extend(blocks[start : start + 5])
    assert table.entries.dtype == np.int32
    assert table.entries.tolist() == blocks
    assert table.num_slots == 40 * 16
    assert table.clear() == blocks
    assert (table.num_blocks, table.num_slots, table.clear()) == (0, 0, [])


def test_tables_of_a_board_are_gathered_padded_with_zeros_whatever_stood_in_their_rows() -> None:
    board = TableBoard()
    for blocks in ([7] * 20, [8] * 3):
        table = BlockTable(board)
        table.extend(blocks)
        table.clear()
    tables = [BlockTable(board) for _ in range(3)]
    for number, table in enumerate(tables):
        table.extend(list(range(10 * number, 10 * number + 2 + number)))
    tables[2].keep([1, 3])
    assert board.gather(tables).tolist() == [[0, 1, 0], [10, 11, 12], [21, 23, 0]]
    assert board.gather(tables[:1]).tolist() == [[0, 1]]
    assert board.gather(tables).flags.c_contiguous and board.gather(tables).dtype == np.int32


def keys_of(tokens: list[int], salt: bytes = b"") -> list[bytes]:
    keys: list[bytes] = []
    extend_keys(keys, np.array(tokens, dtype=np.int32), salt)
    return keys


def test_only_full_blocks_have_keys_and_they_can_be_had_bit_by_bit() -> None:
    tokens = list(range(50))
    keys: list[bytes] = []
    for length in (10, 16, 40, 50):
        extend_keys(keys, np.array(tokens[:length], dtype=np.int32))
    assert keys == keys_of(tokens)
    assert len(set(keys)) == 3


def test_a_key_depends_on_everything_before_its_block_and_on_the_salt() -> None:
    tokens = list(range(32))
    assert keys_of([99, *tokens[1:]])[1] != keys_of(tokens)[1]
    assert keys_of([*tokens[:31], 99])[0] == keys_of(tokens)[0]
    assert not set(keys_of(tokens, b"tenant")) & set(keys_of(tokens))
