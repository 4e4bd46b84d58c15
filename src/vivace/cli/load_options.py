"""Options of `vivace serve` about high load: what is given up in which order, and when."""

import argparse
from typing import TYPE_CHECKING

from vivace.types.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from vivace.engine.service import ModelService
    from vivace.server.load_steps import LoadConfig


def add_load_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    group = parser.add_argument_group("high load (docs/streaming.md)")
    group.add_argument(
        "--degrade",
        metavar="STEPS",
        help="steps against high load, in order: background, max_tokens=N, speculation, kv_window=N, model=NAME "
        "(default: none)",
    )
    group.add_argument(
        "--degrade-at",
        type=int,
        default=8,
        metavar="N",
        help="load is high from so many answers in work on, low at 60%% of it (default: %(default)s)",
    )
    group.add_argument(
        "--degrade-after",
        type=float,
        default=2.0,
        metavar="S",
        help="seconds of high load before the next step (default: %(default)s)",
    )
    group.add_argument(
        "--restore-after",
        type=float,
        default=10.0,
        metavar="S",
        help="seconds of low load before the last step is taken back (default: %(default)s)",
    )


def load_config(arguments: argparse.Namespace) -> "LoadConfig":
    """What the options choose.

    Raises:
        ConfigError: an unknown step, a value out of range, or a step that can have no effect here.
    """
    from vivace.server.load_steps import LoadConfig, parse_steps

    steps = () if arguments.degrade is None else parse_steps(arguments.degrade)
    config = LoadConfig(
        steps, arguments.degrade_at, up_after_s=arguments.degrade_after, down_after_s=arguments.restore_after
    )
    if config.value_of("speculation") is not None and arguments.speculate == "off":
        raise ConfigError("The step speculation has nothing to pause: --speculate is off.", "Leave one of them out.")
    return config


def stand_in_loader(arguments: argparse.Namespace, config: "LoadConfig") -> "Callable[[], ModelService] | None":
    """Loads the smaller model that a step names; it neither guesses ahead nor keeps anything outside its pool."""
    name = config.value_of("model")
    if name is None:
        return None
    from vivace.cli.model_options import open_service

    own = {"model": name, "context": None, "speculate": "off", "draft_model": None, "exit_layer": None}
    kept = {"kv_host_memory": 0, "kv_folder": None}
    changed = argparse.Namespace(**{**vars(arguments), **own, **kept})
    return lambda: open_service(changed)
