"""What is kept of keys and values beyond the engine's own pool: sizes, the folder, and whose files they are."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from vivace.numerics.kv_formats import KV_LAYOUT
from vivace.types.errors import ConfigError
from vivace.types.step import Executor

MEBIBYTE = 1 << 20
SAMPLE_BYTES = 1 << 16
NUM_SAMPLES = 64


@dataclass(frozen=True, slots=True)
class TierConfig:
    """Where blocks go that the pool forgets.

    Args:
        host_bytes: of ordinary memory; 0: none.
        folder: for block files and saved conversations; None: nothing outlives the process.
        disk_bytes: of all block files together.
        max_sessions: saved conversations.
        session_share: of disk_bytes that saved conversations may pin.
    """

    host_bytes: int = 0
    folder: Path | None = None
    disk_bytes: int = 4096 * MEBIBYTE
    max_sessions: int = 1000
    session_share: float = 0.5

    def __post_init__(self) -> None:
        for name, least in (("host_bytes", 0), ("disk_bytes", 1), ("max_sessions", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}.", f"Give at least {least}.")
        if not 0 < self.session_share <= 1:
            raise ConfigError(f"session_share is {self.session_share}.", "Give a share above 0 and at most 1.")

    @property
    def is_off(self) -> bool:
        """Whether nothing is kept anywhere."""
        return self.host_bytes == 0 and self.folder is None


def kv_fingerprint(model: Path, executor: Executor, *settings: object) -> bytes:
    """16 bytes that are equal only where keys and values of equal tokens are equal to the bit.

    Args:
        model: file or folder; names, sizes and samples of the contents count, so that gigabytes need not be read.
        executor: its kind and its instruction set count, since kernels round in ways of their own. So does KV_LAYOUT,
            the number of the way its blocks lie in memory.
        settings: all else that keys and values depend on, such as their format.
    """
    digest = hashlib.blake2b(digest_size=16)
    files = [model] if model.is_file() else sorted(path for path in model.iterdir() if path.is_file())
    for path in files:
        _add_sampled(digest, path)
    sizes = (executor.bytes_per_block, executor.bytes_per_local_block)
    kind = (type(executor).__name__, getattr(executor, "isa", ""), sizes, KV_LAYOUT)
    digest.update(repr((kind, settings)).encode())
    return digest.digest()


def _add_sampled(digest: hashlib.blake2b, path: Path) -> None:
    size = path.stat().st_size
    digest.update(f"{path.name} {size}".encode())
    with path.open("rb") as file:
        for number in range(NUM_SAMPLES):
            file.seek(max(0, size - SAMPLE_BYTES) * number // (NUM_SAMPLES - 1))
            digest.update(file.read(SAMPLE_BYTES))
