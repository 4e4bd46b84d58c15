"""`vivace bench roofline`: what this machine can do at most, and what that allows a model.

Memory is measured by reading, arithmetic by the instruction that the kernel table in use is built on. The floor of a
token follows: the bytes of weights it must read, and the operations its linears take; keys, values and attention come
on top, so nothing can be faster than what is printed. Then the model runs, and each op is held to its own floor
(`roofline_ops.py`).
"""

import argparse
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from vivace.cli.compare.machine import load_average, processor_name
from vivace.cli.model_options import add_model_options, check_model_options, use_isa
from vivace.types.errors import ConfigError

if TYPE_CHECKING:
    from vivace.cli.roofline_ops import OpGain
    from vivace.files.open import LoadedModel

HELP = "what memory and arithmetic of this machine allow a model"
DESCRIPTION = (
    "Measure how fast this machine reads memory and multiplies, in and out of its caches, and print the least time a "
    "model's tokens can take, and how near each op of the model comes to its own limit."
)

BUFFER_MIB = (1, 4, 16, 32, 64, 128, 256)
KINDS = ("int8", "bf16", "f32")
_QUANTIZED_KIND, _FLOAT_KIND = "int8", "f32"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    group = parser.add_argument_group("measurement")
    group.add_argument("--repeat", type=int, default=5, metavar="K", help="tries; the best counts (default: 5)")
    group.add_argument("--json", action="store_true", help="print one JSON object")
    add_model_options(parser)


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """Bytes a second that `threads` read from a buffer of `mebibytes`."""

    mebibytes: int
    threads: int
    bytes_per_s: float


@dataclass(frozen=True, slots=True)
class Peak:
    """Operations a second of a kind of number."""

    kind: str
    threads: int
    operations_per_s: float


@dataclass(frozen=True, slots=True)
class TokenCost:
    """What the linears of a model cost: bytes a step reads, operations a token takes, by kind of number.

    `head_operations` are those of the logits, which a prompt needs once.
    """

    bytes_per_step: int
    operations: dict[str, int]
    head_operations: dict[str, int]


@dataclass(frozen=True, slots=True)
class Roofline:
    """Everything that is printed; rates of tokens are the machine's limits."""

    processor: str
    isa: str
    load_average: float
    bandwidths: list[Bandwidth]
    peaks: list[Peak]
    model: str
    cost: TokenCost
    memory_bytes_per_s: float
    decode_limit: float
    prompt_limit: float
    gains: list["OpGain"]


def run(arguments: argparse.Namespace) -> int:
    """Measure and print.

    Raises:
        ConfigError: a number that can never work.
        VivaceError: the model cannot be read.
    """
    check_model_options(arguments)
    if arguments.repeat < 1:
        raise ConfigError(f"--repeat is {arguments.repeat}.", "Give at least 1.")
    use_isa(arguments)
    roofline = _measure(arguments)
    print(json.dumps(asdict(roofline)) if arguments.json else as_table(roofline))
    return 0


def token_cost(loaded: "LoadedModel") -> TokenCost:
    """Count bytes and operations of a model's linears; only its directory is read."""
    from vivace.graph.build import build_graph
    from vivace.graph.ops import Linear
    from vivace.types.weights import TensorFormat

    floats = (TensorFormat.F32, TensorFormat.F16, TensorFormat.BF16)
    linears = [op for op in build_graph(loaded.spec).ops if isinstance(op, Linear)]
    num_bytes, operations, head = 0, dict.fromkeys(KINDS, 0), dict.fromkeys(KINDS, 0)
    for op in linears:
        info = loaded.weights.info(op.weight)
        kind = _FLOAT_KIND if info.format in floats else _QUANTIZED_KIND
        num_bytes += info.num_bytes
        counted = head if op is linears[-1] else operations  # an op list ends with its logits
        counted[kind] += 2 * info.shape[0] * info.shape[1]
    return TokenCost(num_bytes, operations, head)


def limits(cost: TokenCost, bytes_per_s: float, peaks: dict[str, float]) -> tuple[float, float]:
    """Most tokens a second of one sequence (decode) and of a long prompt.

    A decoded token reads all weights once; a prompt's tokens share them and are bound by arithmetic. A kind without a
    measured peak counts as free: the limit stays a limit.
    """
    decode_s = max(cost.bytes_per_step / bytes_per_s, _seconds(cost.operations, peaks))
    prompt_s = _seconds(cost.operations, peaks)
    return 1 / decode_s, 1 / prompt_s if prompt_s > 0 else float("inf")


def _seconds(operations: dict[str, int], peaks: dict[str, float]) -> float:
    return sum(count / peaks[kind] for kind, count in operations.items() if peaks.get(kind))


def _measure(arguments: argparse.Namespace) -> Roofline:
    import os

    from vivace.execute.native import available_isas, measure_peak, measure_read_bandwidth
    from vivace.files.catalogue import resolve
    from vivace.files.catalogue_rows import DEFAULT_MODEL
    from vivace.files.open import open_model

    most = arguments.threads or len(os.sched_getaffinity(0))
    threads = sorted({1, most})
    isa = os.environ.get("VIVACE_ISA") or available_isas()[0]
    if isa not in available_isas():
        raise ConfigError(f"This machine has no kernel table {isa!r}.", f"It has: {', '.join(available_isas())}.")
    loaded = open_model(resolve(arguments.model or DEFAULT_MODEL))
    try:
        cost, name = token_cost(loaded), loaded.name
    except BaseException:
        loaded.close()
        raise
    bandwidths = [
        Bandwidth(size, count, measure_read_bandwidth(size << 20, count, arguments.repeat))
        for size in BUFFER_MIB
        for count in threads
    ]
    peaks = [Peak(kind, count, measure_peak(isa, kind, count, arguments.repeat)) for kind in KINDS for count in threads]
    model_mebibytes = cost.bytes_per_step >> 20
    memory = measure_read_bandwidth(max(1, model_mebibytes) << 20, most, arguments.repeat)
    best = {peak.kind: peak.operations_per_s for peak in peaks if peak.threads == most}
    decode, prompt = limits(cost, memory, best)
    cache = next(one.bytes_per_s for one in reversed(bandwidths) if one.mebibytes == BUFFER_MIB[0])
    from vivace.cli.roofline_ops import Rates, measure_gains

    try:
        gains = measure_gains(loaded, Rates(memory, cache, best), most, arguments.repeat)
    finally:
        loaded.close()
    return Roofline(processor_name(), isa, load_average(), bandwidths, peaks, name, cost, memory, decode, prompt, gains)


def as_table(roofline: Roofline) -> str:
    """What was measured, and what it allows."""
    from vivace.cli.roofline_ops import as_gain_lines  # its arrays would make every command's help slow

    threads = sorted({one.threads for one in roofline.bandwidths})
    head = "".join(f"{count} thread{'s' if count > 1 else ''}".rjust(14) for count in threads)
    lines = [f"{roofline.processor}, kernel table {roofline.isa}, load average {roofline.load_average:.1f}"]
    lines.append("memory read, GB/s".ljust(24) + head)
    for size in BUFFER_MIB:
        rates = [one.bytes_per_s for one in roofline.bandwidths if one.mebibytes == size]
        lines.append(f"  {size} MiB".ljust(24) + "".join(f"{rate / 1e9:.1f}".rjust(14) for rate in rates))
    lines.append("arithmetic, Gop/s".ljust(24) + head)
    for kind in KINDS:
        found = [one.operations_per_s for one in roofline.peaks if one.kind == kind]
        cells = "".join((f"{rate / 1e9:.0f}" if rate else "-").rjust(14) for rate in found)
        lines.append(f"  {kind}".ljust(24) + cells)
    cost = roofline.cost
    per_token = sum(cost.operations.values())
    lines += [
        f"{roofline.model}: a step reads {cost.bytes_per_step / 1e6:.1f} MB of weights; a token takes "
        f"{per_token / 1e9:.3f} Gop, its logits {sum(cost.head_operations.values()) / 1e9:.3f} Gop more",
        f"  a buffer of that size: {roofline.memory_bytes_per_s / 1e9:.1f} GB/s",
        f"  one sequence can write at most {roofline.decode_limit:.0f} tokens/s (bytes read)",
        f"  a prompt can be read at most at {roofline.prompt_limit:.0f} tokens/s (arithmetic)",
        *as_gain_lines(roofline.gains),
    ]
    return "\n".join(lines)
