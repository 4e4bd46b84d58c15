"""Puts the tiers below an executor's pool together."""

from collections.abc import Sequence
from pathlib import Path

from vivace.cache.disk_tier import DiskTier
from vivace.cache.tiers import BlockTiers
from vivace.engine.conversations import SessionRoom
from vivace.engine.session_store import SessionStore
from vivace.engine.tiering import TierConfig, kv_fingerprint
from vivace.types.step import Executor


def build_tiers(
    config: TierConfig, model: Path, executor: Executor, settings: Sequence[object]
) -> tuple[BlockTiers | None, SessionRoom | None]:
    """The tiers of an executor, and the room for saved conversations where there is a folder.

    Args:
        config: sizes and the folder.
        model: file or folder of the model.
        executor: whose blocks they are.
        settings: what keys and values depend on besides.

    Raises:
        StorageError: the folder cannot be used.
    """
    if config.is_off:
        return None, None
    if config.folder is None:
        return BlockTiers(executor, config.host_bytes), None
    fingerprint = kv_fingerprint(model, executor, *settings)
    disk = DiskTier(config.folder, fingerprint, executor.bytes_per_block, config.disk_bytes)
    store = SessionStore(disk.folder / "sessions", config.max_sessions)
    for record in store.records():
        disk.pin(record.keys)
    max_blocks = int(config.session_share * config.disk_bytes / executor.bytes_per_block)
    return BlockTiers(executor, config.host_bytes, disk), SessionRoom(store, disk, max_blocks)
