"""`vivace evaluate harness`: tasks of lm-evaluation-harness, asked of a vivace model (extra `lm-eval`)."""

import argparse
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vivace.types.errors import ConfigError

NAME = "evaluate harness"
HELP = "ask a model the tasks of lm-evaluation-harness"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the model and the tasks."""
    parser.add_argument("model", metavar="MODEL", help="a catalogue name, a .gguf file or a Hugging Face folder")
    parser.add_argument("--tasks", required=True, metavar="NAMES", help="tasks of the harness, with commas between")
    parser.add_argument("--include-path", type=Path, metavar="FOLDER", help="tasks of your own (the harness's YAML)")
    parser.add_argument("--fewshot", type=int, metavar="N", help="worked examples (default: the task's)")
    parser.add_argument("--limit", type=int, metavar="N", help="questions of a task (default: all)")
    parser.add_argument("--chat-template", action="store_true", help="ask through the model's chat template")
    parser.add_argument("--max-length", type=int, metavar="N", help="tokens of context (default: the model's, 4096)")
    parser.add_argument("--activation-bits", type=int, choices=(8, 12, 32), default=12, help="8: W8A8, W4A8; 32: exact")
    parser.add_argument("--threads", type=int, metavar="N", help="threads that compute (default: the machine's cores)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Ask and print.

    Raises:
        VivaceError: the harness is not installed, or the model or a task can never work.
    """
    if find_spec("lm_eval") is None:
        raise ConfigError("The harness is not installed.", "pip install 'vivace[lm-eval]'")
    for name, least in (("fewshot", 0), ("limit", 1), ("max_length", 16), ("threads", 1)):
        value = getattr(arguments, name)
        if value is not None and value < least:
            raise ConfigError(f"--{name.replace('_', '-')} is {value}.", f"Give at least {least}.")
    if arguments.include_path is not None and not arguments.include_path.is_dir():
        raise ConfigError(f"{arguments.include_path} is no folder.", "Name one with the harness's YAML files.")
    results = _ask(arguments)
    print(json.dumps(results) if arguments.json else _table(results))
    return 0


def _ask(arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    from vivace.evaluate.lm_eval_model import VivaceLM

    manager = TaskManager(include_path=None if arguments.include_path is None else str(arguments.include_path))
    names = [name.strip() for name in arguments.tasks.split(",")]
    if unknown := [name for name in names if name not in manager.all_tasks]:
        raise ConfigError(f"The harness has no task {unknown[0]!r}.", "`lm_eval ls tasks` lists them.")
    model = VivaceLM(
        arguments.model, arguments.max_length, activation_bits=arguments.activation_bits, threads=arguments.threads
    )
    try:
        found = simple_evaluate(
            model=model,
            tasks=names,
            num_fewshot=arguments.fewshot,
            limit=arguments.limit,
            apply_chat_template=arguments.chat_template,
            task_manager=manager,
            log_samples=False,
        )
    except (OSError, ConnectionError, ValueError) as error:  # its data sets come from a hub
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"A task could not be set up: {reason}.", "Check its data set.") from None
    results: dict[str, dict[str, Any]] = (found or {})["results"]
    return {name: {key: value for key, value in task.items() if key != "alias"} for name, task in results.items()}


def _table(results: dict[str, dict[str, Any]]) -> str:
    """A line a task and metric; the harness keys a metric "name,filter" and its error "name_stderr,filter"."""
    lines = ["| task | metric | value | standard error |", "|---|---|---|---|"]
    for task, metrics in results.items():
        for key, value in metrics.items():
            name, _, kind = key.partition(",")
            if not kind or name.endswith("_stderr") or not isinstance(value, int | float):
                continue
            error = metrics.get(f"{name}_stderr,{kind}")
            shown = f"{error:.4f}" if isinstance(error, int | float) else ""
            lines.append(f"| {task} | {name} | {value:.4f} | {shown} |")
    return "\n".join(lines)
