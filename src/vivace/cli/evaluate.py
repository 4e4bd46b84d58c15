"""`vivace evaluate`: perplexity of a model, and how far it is from a reference, with limits for CI."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vivace.cli.model_options import use_isa
from vivace.cli.work_progress import WorkProgress
from vivace.types.errors import ConfigError

if TYPE_CHECKING:
    from vivace.compress.evaluate import Evaluation

NAME = "evaluate"
HELP = "measure how good a model is, alone or against a reference"

GATE_MISSED_STATUS = 3
_QUICK_WINDOWS = 4

_WORDS = {
    "ppl": "perplexity",
    "reference_ppl": "of the reference",
    "ppl_ratio": "ratio",
    "recovery": "recovery",
    "kld": "KL divergence",
    "kld_99": "99th percentile",
    "kld_max": "worst position",
    "same_top": "same top token",
    "probability_change": "probability change",
    "bytes": "bytes",
    "reference_bytes": "of the reference",
    "num_tokens": "tokens scored",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the models, the text and the limits."""
    parser.add_argument("model", metavar="MODEL", help="a catalogue name, a .gguf file or a Hugging Face folder")
    parser.add_argument("--against", metavar="REF", help="the model that is to be matched")
    parser.add_argument("--text", type=Path, required=True, metavar="FILE", help="a UTF-8 text to read")
    parser.add_argument("--windows", type=int, default=30, metavar="N", help="windows to read (default: %(default)s)")
    parser.add_argument("--size", type=int, default=512, metavar="N", help="tokens of a window (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help=f"{_QUICK_WINDOWS} windows only: a first look")
    parser.add_argument("--activation-bits", type=int, choices=(8, 12), default=12, help="8 measures W8A8 and W4A8")
    parser.add_argument("--threads", type=int, metavar="N", help="threads that compute (default: the machine's cores)")
    parser.add_argument("--isa", metavar="NAME", help="force an instruction set, as VIVACE_ISA does")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the figures as a Markdown table as well")
    limits = parser.add_argument_group("limits", f"a missed one ends the command with status {GATE_MISSED_STATUS}")
    limits.add_argument("--max-ppl-delta", type=float, metavar="X", help="most that perplexity may rise")
    limits.add_argument("--min-recovery", type=float, metavar="X", help="least reference perplexity / perplexity")
    limits.add_argument("--max-kld", type=float, metavar="X", help="largest mean KL divergence in nats")


def run(arguments: argparse.Namespace) -> int:
    """Evaluate, print, and hold the figures to the limits.

    Raises:
        VivaceError: a model, the text or an option can never work.
    """
    _check(arguments)
    use_isa(arguments)
    from vivace.compress.evaluate import EvaluationSettings, Gate, evaluate_files
    from vivace.files.catalogue import resolve

    windows = min(arguments.windows, _QUICK_WINDOWS) if arguments.quick else arguments.windows
    settings = EvaluationSettings(arguments.size, windows, arguments.activation_bits, arguments.threads)
    reference = None if arguments.against is None else resolve(arguments.against)
    with WorkProgress() as progress:
        figures = evaluate_files(resolve(arguments.model), arguments.text, reference, settings, progress)
    if arguments.json:
        print(json.dumps(figures.as_dict()))
    else:
        print("\n".join(f"{words:>20}  {value}" for words, value in _rows(figures)))
    if arguments.markdown is not None:
        _write_markdown(arguments.markdown, figures)
    missed = Gate(arguments.max_ppl_delta, arguments.min_recovery, arguments.max_kld).failures(figures)
    for sentence in missed:
        print(f"vivace: limit missed: {sentence}", file=sys.stderr)
    return GATE_MISSED_STATUS if missed else 0


def _check(arguments: argparse.Namespace) -> None:
    for name, least in (("windows", 1), ("size", 4), ("threads", 1)):
        value = getattr(arguments, name)
        if value is not None and value < least:
            raise ConfigError(f"--{name} is {value}.", f"Give at least {least}.")
    if arguments.against is None:
        for name in ("max_ppl_delta", "min_recovery", "max_kld"):
            if getattr(arguments, name) is not None:
                raise ConfigError(f"--{name.replace('_', '-')} needs a reference.", "Name one with --against.")


def _rows(figures: "Evaluation") -> list[tuple[str, str]]:
    values = figures.as_dict()
    rows = []
    for name, words in _WORDS.items():
        value, error = values[name], values.get(f"{name}_error")
        if value is not None:
            shown = f"{value:,}" if isinstance(value, int) else f"{value:.5g}"
            rows.append((words, shown if error is None else f"{shown} ± {error:.2g}"))
    return rows


def _write_markdown(path: Path, figures: "Evaluation") -> None:
    lines = ["| figure | value |", "|---|---|", *(f"| {words} | {value} |" for words, value in _rows(figures))]
    try:
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}.", "Check the path.") from None
