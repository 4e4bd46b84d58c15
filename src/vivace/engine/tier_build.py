"""Puts the tiers below an executor's pool together."""

from collections.abc import Sequence
from pathlib import Path

from vivace.cache.disk_tier import DiskTier
from vivace.cache.tiers import BlockTiers, LocalMemory
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
    local = LocalMemory(executor) if executor.bytes_per_local_block else None
    if config.folder is None:
        return BlockTiers(executor, config.host_bytes, local=local), None
    fingerprint = kv_fingerprint(model, executor, *settings)
    sizes = (executor.bytes_per_block, executor.bytes_per_local_block)
    disk = DiskTier(config.folder, fingerprint, sizes, config.disk_bytes)
    store = SessionStore(disk.folder / "sessions", config.max_sessions)
    for record in store.records():
        disk.pin(record.keys)
    max_blocks = int(config.session_share * config.disk_bytes / max(sizes))
    return BlockTiers(executor, config.host_bytes, disk, local=local), SessionRoom(store, disk, max_blocks)
