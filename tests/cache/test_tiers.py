"""Blocks that the pool forgets go to host memory and to files, and come back by key, whole or not at all."""

from pathlib import Path

import numpy as np
import pytest

from vivace.cache.block_file import SUFFIX, read_block_file, write_block_file
from vivace.cache.disk_tier import DiskTier
from vivace.cache.host_tier import HostTier
from vivace.cache.returns import MAX_CONVERSATIONS, ReturnPredictor
from vivace.cache.tiers import BlockTiers
from vivace.types.errors import StorageError
from vivace.types.step import BlockContent

SIZE = 100
MINE, OTHER = b"m" * 16, b"o" * 16
FILE_SIZE = SIZE + 52


def content(number: int) -> BlockContent:
    return np.full(SIZE, number, dtype=np.uint8)


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


def open_tier(folder: Path, max_files: int = 100, fingerprint: bytes = MINE) -> DiskTier:
    return DiskTier(folder, fingerprint, (SIZE,), max_files * FILE_SIZE)


class Memory:
    """A pool of blocks that hold their own numbers."""

    bytes_per_block = SIZE

    def __init__(self) -> None:
        self.blocks = {number: content(number) for number in range(9)}

    def read_block(self, block: int) -> BlockContent:
        return self.blocks[block].copy()

    def write_block(self, block: int, content: BlockContent) -> None:
        self.blocks[block] = content


def test_host_memory_forgets_the_least_recently_used_and_passes_it_on() -> None:
    passed: list[bytes] = []
    tier = HostTier(2 * SIZE, lambda name, _: passed.append(name))
    tier.put(key(1), content(1))
    tier.put(key(2), content(2))
    assert tier.get(key(1)) is not None
    tier.put(key(3), content(3))
    assert passed == [key(2)]
    assert key(1) in tier and key(2) not in tier
    assert tier.num_bytes == 2 * SIZE == len(tier) * SIZE
    tier.discard(key(1))
    assert tier.num_bytes == SIZE


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / f"a{SUFFIX}"
    assert write_block_file(path, MINE, key(1), content(7)) == path.stat().st_size == FILE_SIZE
    back = read_block_file(path, MINE, key(1), (SIZE,))
    assert back is not None and back.tolist() == content(7).tolist()
    assert path.stat().st_mode & 0o077 == 0
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("damage", ["byte", "short", "long", "empty", "fingerprint", "key", "version", "absent"])
def test_a_file_that_is_not_what_it_should_be_reads_as_absent(tmp_path: Path, damage: str) -> None:
    path = tmp_path / f"a{SUFFIX}"
    write_block_file(path, OTHER if damage == "fingerprint" else MINE, key(damage == "key"), content(7))
    whole = path.read_bytes()
    damaged = {
        "byte": whole[:-1] + b"\x00",
        "short": whole[:-1],
        "long": whole + b"\x07",
        "empty": b"",
        "version": whole[:7] + b"\x00" + whole[8:],
    }
    path.write_bytes(damaged.get(damage, whole))
    if damage == "absent":
        path.unlink()
    assert read_block_file(path, MINE, key(0), (SIZE,)) is None


def test_files_are_found_after_a_restart_by_the_same_fingerprint_alone(tmp_path: Path) -> None:
    tier = open_tier(tmp_path)
    tier.put(key(1), content(1))
    assert key(1) in tier and tier.get(key(1)) is not None, "there before it is written"
    tier.close()
    again, other = open_tier(tmp_path), open_tier(tmp_path, fingerprint=OTHER)
    found = again.get(key(1))
    assert found is not None and found.tolist() == content(1).tolist()
    assert other.get(key(1)) is None
    again.close()
    other.close()


def test_what_a_killed_process_left_is_removed_and_damage_is_a_miss(tmp_path: Path) -> None:
    tier = open_tier(tmp_path)
    tier.put(key(1), content(1))
    tier.flush()
    (tier.folder / "half.part").write_bytes(b"half")
    (tier.folder / f"nonsense{SUFFIX}").write_bytes(b"?")
    path = tier.folder / f"{key(1).hex()}{SUFFIX}"
    path.write_bytes(path.read_bytes()[:-3])
    tier.close()
    again = open_tier(tmp_path)
    assert sorted(entry.name for entry in again.folder.iterdir()) == [path.name]
    assert key(1) in again and again.get(key(1)) is None
    assert key(1) not in again and not path.exists()
    again.close()


def test_the_size_limit_spares_what_is_pinned_and_what_was_used(tmp_path: Path) -> None:
    tier = open_tier(tmp_path, max_files=3)
    for number in (1, 2, 3):
        tier.put(key(number), content(number))
    tier.flush()
    tier.pin([key(1)])
    assert tier.get(key(2)) is not None
    tier.put(key(4), content(4))
    tier.flush()
    assert [number for number in range(1, 5) if key(number) in tier] == [1, 2, 4]
    assert tier.num_bytes == 3 * FILE_SIZE == sum(path.stat().st_size for path in tier.folder.iterdir())
    tier.unpin([key(1)], forget=True)
    assert key(1) not in tier and tier.num_bytes == 2 * FILE_SIZE
    tier.close()


def test_files_of_other_models_go_first_when_there_is_too_much(tmp_path: Path) -> None:
    for fingerprint in (OTHER, MINE):
        tier = open_tier(tmp_path, fingerprint=fingerprint)
        for number in range(3):
            tier.put(key(number), content(number))
        tier.close()
    again = open_tier(tmp_path, max_files=4)
    assert len(again) == 3
    assert len(list(tmp_path.glob(f"*/*{SUFFIX}"))) == 4
    again.close()


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="folder of yours"):
        open_tier(tmp_path / "file")


def test_blocks_spill_to_host_then_to_disk_and_come_back(tmp_path: Path) -> None:
    disk = open_tier(tmp_path)
    tiers = BlockTiers(Memory(), 2 * SIZE, disk)
    for number in range(4):
        tiers.spill(number, key(number))
    disk.flush()
    assert (tiers.stats().host_blocks, tiers.stats().disk_blocks) == (2, 2)
    assert tiers.num_stored([key(number) for number in range(5)]) == (4, 2)
    back = tiers.fetch([key(number) for number in range(5)])
    assert [int(each[0]) for each in back] == [0, 1, 2, 3]
    stats = tiers.stats()
    assert stats.num_from_disk >= 2 and stats.num_from_host + stats.num_from_disk == 4
    assert stats.spill_rate == 1 and stats.hit_rate is None and stats.preload_hit_rate is None
    tiers.close()


def test_a_missing_block_ends_the_run(tmp_path: Path) -> None:
    tiers = BlockTiers(Memory(), 9 * SIZE)
    for number in (0, 1, 3):
        tiers.spill(number, key(number))
    assert len(tiers.fetch([key(number) for number in range(4)])) == 2
    tiers.forget_host()
    assert tiers.fetch([key(0)]) == []


def test_blocks_are_read_ahead_in_the_background(tmp_path: Path) -> None:
    disk = open_tier(tmp_path)
    tiers = BlockTiers(Memory(), SIZE, disk)
    for number in range(3):
        tiers.spill(number, key(number))
    disk.flush()
    come: list[dict[bytes, BlockContent]] = []
    assert tiers.read_ahead([key(0), key(1), key(2)], come.append)
    disk.flush()
    assert {name: int(each[0]) for name, each in come[0].items()} == {key(0): 0, key(1): 1}
    assert not tiers.read_ahead([key(2)], come.append), "it is in host memory"
    tiers.close()


def chain(start: int, length: int) -> list[bytes]:
    return [key(start * 100 + index) for index in range(length)]


def test_who_came_back_before_is_expected_again_and_the_most_recent_first() -> None:
    returns = ReturnPredictor()
    for start in (1, 2, 3):
        returns.note_active(chain(start, 2))
    returns.note_active([])
    assert list(returns.expected(100)) == [], "all of them came once"
    for start in (1, 2):
        returns.note_active(chain(start, 4))
    assert list(returns.expected(100)) == [tuple(chain(2, 4)), tuple(chain(1, 4))]
    assert list(returns.expected(7)) == [tuple(chain(2, 4))]
    returns.note_active(chain(1, 4))
    assert next(returns.expected(100)) == tuple(chain(1, 4))
    assert len(list(returns.expected(100))) == 2


def test_the_same_prompt_twice_is_no_second_turn_and_old_conversations_are_forgotten() -> None:
    returns = ReturnPredictor()
    returns.note_active(chain(1, 2))
    returns.note_active(chain(1, 2))
    assert list(returns.expected(100)) == []
    returns.note_active(chain(1, 3))
    for start in range(2, 2 + MAX_CONVERSATIONS):
        returns.note_active(chain(start, 1))
    assert list(returns.expected(100)) == []
