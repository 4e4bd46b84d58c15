"""`vivace evaluate`: a quality report of a model, alone or against a reference, with limits for CI."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vivace.cli.model_options import use_isa
from vivace.cli.output_files import output_file
from vivace.cli.work_progress import WorkProgress
from vivace.types.errors import ConfigError
from vivace.types.run_settings import FILE_WEIGHTS, WEIGHT_FORMATS

if TYPE_CHECKING:
    from vivace.evaluate.report import QualityReport, ReportSettings

NAME = "evaluate"
HELP = "measure how good a model is, alone or against a reference"

GATE_MISSED_STATUS = 3
_QUICK_WINDOWS, _QUICK_ITEMS, _QUICK_ANSWERS, _QUICK_SPEED = 4, 24, (4, 48), (128, 24)
_LIMITS = ("max_ppl_delta", "min_recovery", "min_task_recovery", "max_kld")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the models, the text and the limits."""
    parser.add_argument("model", metavar="MODEL", help="a catalogue name, a .gguf file or a Hugging Face folder")
    parser.add_argument("--against", metavar="REF", help="the model that is to be matched")
    parser.add_argument("--text", type=Path, metavar="FILE", help="a UTF-8 text to read (default: REF writes some)")
    parser.add_argument("--tasks", type=Path, metavar="FOLDER", help="questions besides the built-in ones")
    parser.add_argument("--task-items", type=int, default=200, metavar="N", help="most questions of a task (200)")
    parser.add_argument("--windows", type=int, default=30, metavar="N", help="windows to read (default: %(default)s)")
    parser.add_argument("--size", type=int, default=512, metavar="N", help="tokens of a window (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="a first look: fewer windows, questions and answers")
    parser.add_argument("--only", metavar="PARTS", help="some of text,tasks,generation,speed (default: all)")
    parser.add_argument(
        "--activation-bits",
        type=int,
        choices=(8, 12, 32),
        help="8 measures W8A8 and W4A8, 32 the weights alone, in float32 (default: as each file asks)",
    )
    parser.add_argument(
        "--weights",
        choices=WEIGHT_FORMATS,
        default=FILE_WEIGHTS,
        help="how MODEL's linears run: in its own codes, or requantised at load, as serve takes it (file)",
    )
    parser.add_argument(
        "--precision",
        default="off",
        metavar="P",
        help="of MODEL's nested weights, as chat and serve take it (off: all)",
    )
    parser.add_argument(
        "--levels", action="store_true", help="read every level of MODEL's nested weights, by bands of positions"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="threads that compute (default: the machine's cores)")
    parser.add_argument("--isa", metavar="NAME", help="force an instruction set, as VIVACE_ISA does")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--html", type=output_file, metavar="FILE", help="write a page with plots as well, one file")
    parser.add_argument(
        "--markdown",
        type=output_file,
        metavar="FILE",
        help="write the figures as Markdown tables as well, plots beside it",
    )
    limits = parser.add_argument_group("limits", f"a missed one ends the command with status {GATE_MISSED_STATUS}")
    limits.add_argument("--max-ppl-delta", type=float, metavar="X", help="most that perplexity may rise")
    limits.add_argument("--min-recovery", type=float, metavar="X", help="least reference perplexity / perplexity")
    limits.add_argument("--min-task-recovery", type=float, metavar="X", help="least right answers / the reference's")
    limits.add_argument("--max-kld", type=float, metavar="X", help="largest mean KL divergence in nats")


def run(arguments: argparse.Namespace) -> int:
    """Evaluate, print, and hold the figures to the limits.

    Raises:
        VivaceError: a model, the text or an option can never work.
    """
    settings = _settings(arguments)
    use_isa(arguments)
    from vivace.evaluate.render import render_html, render_markdown
    from vivace.evaluate.report import make_report
    from vivace.files.catalogue import resolve

    reference = None if arguments.against is None else resolve(arguments.against)
    with WorkProgress() as progress:
        report = make_report(resolve(arguments.model), reference, arguments.text, settings, progress)
    missed = _missed(arguments, report)
    if arguments.html is not None:
        _write(arguments.html, render_html(report, missed))
    if arguments.markdown is not None:
        _write_markdown(arguments.markdown, report, missed)
    print(json.dumps(report.as_dict() | {"missed": missed}) if arguments.json else render_markdown(report).rstrip())
    for sentence in missed:
        print(f"vivace: limit missed: {sentence}", file=sys.stderr)
    return GATE_MISSED_STATUS if missed else 0


def _settings(arguments: argparse.Namespace) -> "ReportSettings":
    """What is measured; refuses what can never work before a model is opened."""
    from vivace.compress.evaluate import EvaluationSettings
    from vivace.evaluate.report import PARTS, ReportSettings

    for name, least in (("windows", 1), ("size", 4), ("threads", 1), ("task_items", 1)):
        value = getattr(arguments, name)
        if value is not None and value < least:
            raise ConfigError(f"--{name.replace('_', '-')} is {value}.", f"Give at least {least}.")
    parts = PARTS if arguments.only is None else tuple(part.strip() for part in arguments.only.split(","))
    if unknown := [part for part in parts if part not in PARTS]:
        raise ConfigError(f"There is no part {unknown[0]!r}.", f"Choose some of {','.join(PARTS)}.")
    if arguments.levels and "text" not in parts:
        raise ConfigError("--levels needs the part 'text'.", f"Add it to --only {','.join(parts)}.")
    for name in _LIMITS:
        option = f"--{name.replace('_', '-')}"
        needed = "tasks" if name == "min_task_recovery" else "text"
        if getattr(arguments, name) is not None and arguments.against is None:
            raise ConfigError(f"{option} needs a reference.", "Name one with --against.")
        if getattr(arguments, name) is not None and needed not in parts:
            raise ConfigError(f"{option} needs the part {needed!r}.", f"Add it to --only {','.join(parts)}.")
    quick = arguments.quick
    windows = min(arguments.windows, _QUICK_WINDOWS) if quick else arguments.windows
    settings = ReportSettings(
        text=EvaluationSettings(arguments.size, windows, arguments.activation_bits, arguments.threads),
        parts=parts,
        tasks=arguments.tasks,
        task_items=min(arguments.task_items, _QUICK_ITEMS) if quick else arguments.task_items,
        precision=arguments.precision,
        weights=arguments.weights,
        levels=arguments.levels,
    )
    if not quick:
        return settings
    from dataclasses import replace

    return replace(settings, answers=_QUICK_ANSWERS, speed_tokens=_QUICK_SPEED)


def _missed(arguments: argparse.Namespace, report: "QualityReport") -> list[str]:
    from vivace.compress.evaluate import Gate

    gate = Gate(arguments.max_ppl_delta, arguments.min_recovery, arguments.max_kld)
    missed = [] if report.figures is None else gate.failures(report.figures)
    least, found = arguments.min_task_recovery, report.task_recovery
    if least is not None and (found is None or found < least):
        shown = "not known: the reference got nothing right" if found is None else f"{found:.4g}"
        missed.append(f"recovery on tasks is {shown}, the limit is {least:.4g}")
    return missed


def _write_markdown(path: Path, report: "QualityReport", missed: list[str]) -> None:
    """The tables, and beside them each plot as an SVG file that they show."""
    from vivace.evaluate.render import render_markdown, render_plots

    plots = {name: (path.with_name(f"{path.stem}-{name}.svg"), svg) for name, svg in render_plots(report).items()}
    for file, svg in plots.values():
        _write(file, svg)
    _write(path, render_markdown(report, missed, {name: file.name for name, (file, _) in plots.items()}))


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}.", "Check the path.") from None
