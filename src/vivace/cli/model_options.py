"""Options that say which model runs and how, shared by every command that runs one."""

import argparse
import os
from typing import TYPE_CHECKING

from vivace.cli.kv_options import KV_FORMAT_HELP, kv_formats
from vivace.cli.queue_options import queue_config
from vivace.types.errors import ConfigError
from vivace.types.kv import DEFAULT_KV_FORMAT
from vivace.types.run_settings import FILE_WEIGHTS, WEIGHT_FORMATS

if TYPE_CHECKING:
    from vivace.engine.service import ModelService


SERVING_OPTIONS = (
    "order",
    "eviction",
    "long_chat",
    "speculate",
    "draft_model",
    "exit_layer",
    "max_drafts",
    "precision",
)
"""Settings of the engine that only commands with many readers have options for."""


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        metavar="M",
        help="a catalogue name ('vivace models list'), a .gguf file, a folder or a hub id (default: smollm2-135m)",
    )
    group.add_argument("--context", type=int, metavar="N", help="tokens of prompt and answer (default: the model's)")
    group.add_argument("--threads", type=int, metavar="N", help="threads that compute (default: the machine's cores)")
    group.add_argument(
        "--activation-bits",
        type=int,
        choices=(12, 8, 32),
        help="precision inside quantised layers: 12, or 8 for quicker prompts a little further from the full model, or "
        "32: exact, with four bytes a weight (default: as the model file asks, else 12)",
    )
    group.add_argument(
        "--weights",
        choices=WEIGHT_FORMATS,
        default=FILE_WEIGHTS,
        help="int8: linears are requantised at load, which is quicker on prompts and many streams, slower on one, "
        "and further from the full model (docs/performance.md) (default: %(default)s)",
    )
    group.add_argument(
        "--kv-format",
        type=kv_formats,
        metavar="F",
        help=f"{KV_FORMAT_HELP}; docs/kv-cache.md has what each costs (default: as the model file asks, "
        f"else {DEFAULT_KV_FORMAT}; bf16 with 8-bit activations or int8 weights, where the machine multiplies it)",
    )
    group.add_argument(
        "--kv-policy",
        default="full",
        metavar="P",
        help="which tokens before it a token sees: full, window, keytokens or adaptive (docs/kv-cache.md)",
    )
    group.add_argument(
        "--precision",
        default="off",
        metavar="P",
        help="how much of a nested model's weights is read: off (all; the default, for rows of fewer bits win about a "
        "tenth in speed and leave a trace in all that follows: docs/precision.md), chapter, bands:0=full,128=mixed, "
        "load:N, battery:PERCENT, heat:CELSIUS, joined by +",
    )
    group.add_argument("--isa", metavar="NAME", help="force an instruction set, as VIVACE_ISA does (scalar, avx2, ...)")


def open_service(arguments: argparse.Namespace) -> "ModelService":
    """The service that the options ask for; the model is downloaded first if it has to be.

    Raises:
        VivaceError: there is no such model, it cannot be loaded, or an option can never work.
    """
    check_model_options(arguments)
    use_isa(arguments)
    return build(arguments)


def check_model_options(arguments: argparse.Namespace) -> None:
    """Refuse numbers that can never work, in the words of the command line.

    Raises:
        ConfigError: a number below 1.
    """
    for name in ("context", "threads"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name} is {value}.", "Give at least 1.")


def use_isa(arguments: argparse.Namespace) -> None:
    """Hand --isa to the native core, which reads VIVACE_ISA when it is first used."""
    if arguments.isa is not None:
        os.environ["VIVACE_ISA"] = arguments.isa


def build(arguments: argparse.Namespace) -> "ModelService":
    """Load the model; everything heavy is imported here and not before."""
    from vivace.engine.build import EngineConfig, build_service
    from vivace.engine.tiering import MEBIBYTE, TierConfig

    serving = {name: getattr(arguments, name) for name in SERVING_OPTIONS if hasattr(arguments, name)}
    if hasattr(arguments, "kv_folder"):
        serving["queue"] = queue_config(arguments)
        serving["tiers"] = TierConfig(
            arguments.kv_host_memory * MEBIBYTE, arguments.kv_folder, arguments.kv_disk * MEBIBYTE
        )
    config = EngineConfig(
        context_length=arguments.context,
        num_threads=arguments.threads,
        activation_bits=arguments.activation_bits,
        kv_format=arguments.kv_format,
        kv_policy=arguments.kv_policy,
        weights=arguments.weights,
        **serving,
    )
    return build_service(arguments.model, config)
