"""How many KV blocks a model gets: enough for a few whole contexts, bounded by the memory that is there."""

from dataclasses import dataclass
from pathlib import Path

from vivace.numerics import kv_formats
from vivace.types.errors import ConfigError
from vivace.types.kv import DEFAULT_KV_FORMAT
from vivace.types.model import ModelSpec
from vivace.types.step import BLOCK_SIZE

CONTEXTS_BY_DEFAULT = 4
LEAST_TOKENS_BY_DEFAULT = 16_384  # a short --context bounds one answer, not how many people may chat
SHARE_OF_AVAILABLE = 0.25


@dataclass(frozen=True, slots=True)
class KvBlocks:
    """Blocks to allocate: `num_local` are of layers with a window and float16 copies, None where a block holds all."""

    num_blocks: int
    num_local: int | None = None


@dataclass(frozen=True, slots=True)
class LocalDemand:
    """What local blocks are reckoned with: sequences that run at the same time, and rows of a step."""

    max_sequences: int
    max_batch_tokens: int

    def num_blocks(self, window: int) -> int:
        """Enough for every running sequence to hold its whole window, and for prompts on their way through theirs."""
        each = window // BLOCK_SIZE + 3
        return self.max_sequences * each + 2 * (self.max_batch_tokens // BLOCK_SIZE)


def bytes_per_block(spec: ModelSpec, kv_format: str | tuple[str, ...] = DEFAULT_KV_FORMAT) -> int:
    """Bytes of one KV block over all layers: keys and values of BLOCK_SIZE positions.

    Raises:
        ConfigError: there is no such KV format, or it cannot hold heads of this size.
    """
    return sum(_bytes_of_kinds(spec, kv_format))


def _bytes_of_kinds(spec: ModelSpec, kv_format: str | tuple[str, ...]) -> tuple[int, int]:
    """Bytes of a block over the layers that are not local, and over those that are, with float16 copies."""
    attention = spec.attention
    formats = kv_formats.layer_formats(kv_format, spec.num_layers, attention.head_dim, attention.local_layers)
    return kv_formats.bytes_by_kind(formats, attention.local_layers, attention.num_kv_heads, attention.head_dim)


def local_reach(spec: ModelSpec, kv_format: str | tuple[str, ...]) -> tuple[int, int]:
    """Positions whose local blocks a sequence needs, the latest and the first; (0, 0) where there are none."""
    attention = spec.attention
    formats = kv_formats.layer_formats(kv_format, spec.num_layers, attention.head_dim, attention.local_layers)
    return kv_formats.local_reach(formats, attention.local_window)


def choose_blocks(
    spec: ModelSpec,
    context_length: int,
    budget_bytes: int | None,
    kv_format: str | tuple[str, ...] = DEFAULT_KV_FORMAT,
    local: LocalDemand | None = None,
) -> KvBlocks:
    """Blocks to allocate.

    Args:
        spec: the model.
        context_length: wanted tokens of one sequence.
        budget_bytes: what the caller allows for KV; None: four whole contexts, but at most a quarter of
            what is available.
        kv_format: how keys and values are stored, one name or one a layer.
        local: give layers with a window blocks of their own, reckoned with this; None: a block holds all layers.

    Raises:
        ConfigError: not even one block fits, or there is no such KV format.
    """
    window, first = local_reach(spec, kv_format)
    if local is None or not window:
        return KvBlocks(choose_num_blocks(spec, context_length, budget_bytes, available_memory_bytes(), kv_format))
    main_bytes, local_bytes = _bytes_of_kinds(spec, kv_format)
    most_local = local.num_blocks(window + first)
    wanted = max(CONTEXTS_BY_DEFAULT * -(-context_length // BLOCK_SIZE), LEAST_TOKENS_BY_DEFAULT // BLOCK_SIZE)
    if budget_bytes is None:
        needed = wanted * main_bytes + min(wanted, most_local) * local_bytes
        budget_bytes = min(needed, int(available_memory_bytes() * SHARE_OF_AVAILABLE))
    num_blocks = budget_bytes // (main_bytes + local_bytes)
    if num_blocks > most_local:
        return KvBlocks((budget_bytes - most_local * local_bytes) // main_bytes, most_local)
    if num_blocks < 1:
        raise _no_block(budget_bytes, main_bytes + local_bytes)
    return KvBlocks(num_blocks, num_blocks)


def choose_num_blocks(
    spec: ModelSpec,
    context_length: int,
    kv_memory_bytes: int | None,
    available_bytes: int,
    kv_format: str | tuple[str, ...] = DEFAULT_KV_FORMAT,
) -> int:
    """Blocks to allocate where a block holds all layers.

    Args:
        spec: the model.
        context_length: wanted tokens of one sequence.
        kv_memory_bytes: what the caller allows for KV; None: four whole contexts, or 16,384 tokens if that
            is more, but at most a quarter of what is available.
        available_bytes: memory that can be had now.
        kv_format: how keys and values are stored, one name or one a layer.

    Raises:
        ConfigError: not even one block fits, or there is no such KV format.
    """
    block_bytes = bytes_per_block(spec, kv_format)
    budget = kv_memory_bytes
    if budget is None:
        wanted = max(CONTEXTS_BY_DEFAULT * -(-context_length // BLOCK_SIZE), LEAST_TOKENS_BY_DEFAULT // BLOCK_SIZE)
        budget = min(wanted * block_bytes, int(available_bytes * SHARE_OF_AVAILABLE))
    num_blocks = budget // block_bytes
    if num_blocks < 1:
        raise _no_block(budget, block_bytes)
    return num_blocks


def _no_block(budget: int, block_bytes: int) -> ConfigError:
    return ConfigError(
        f"{budget} bytes hold no KV block of {block_bytes} bytes ({BLOCK_SIZE} tokens of this model).",
        "Allow more kv_memory_bytes, or free memory.",
    )


def available_memory_bytes(root: Path = Path("/")) -> int:
    """Memory this process could still take: what the system has, or the control group it is in, if that is less.

    Args:
        root: where `proc` and `sys` are mounted, for tests. Without them 4 GiB is assumed.
    """
    amounts = [amount for amount in (_system_bytes(root), _control_group_bytes(root)) if amount is not None]
    return min(amounts, default=4 << 30)


def _system_bytes(root: Path) -> int | None:
    text = _read(root / "proc/meminfo")
    for line in text.splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _control_group_bytes(root: Path) -> int | None:
    folder = root / "sys/fs/cgroup"
    limit, used = _read(folder / "memory.max").strip(), _read(folder / "memory.current").strip()
    if not limit.isdigit() or not used.isdigit():
        return None
    reclaimable = 0
    for line in _read(folder / "memory.stat").splitlines():
        if line.startswith("inactive_file "):
            reclaimable = int(line.split()[1])
    return max(0, int(limit) - int(used) + reclaimable)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""
