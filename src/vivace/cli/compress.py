"""`vivace compress`: make a smaller model file, checked before it appears."""

import argparse
import json
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vivace.cli.compress_summary import figures_of, print_summary
from vivace.cli.output_files import output_file
from vivace.cli.text_options import add_text_options, calibration_text, text_in_use
from vivace.cli.work_progress import WorkProgress
from vivace.types.errors import ConfigError

if TYPE_CHECKING:
    from vivace.compress.device import Device
    from vivace.compress.estimate import Estimate
    from vivace.compress.recipe import Recipe
    from vivace.compress.samples import CalibrationText
    from vivace.compress.save import MixBudget

NAME = "compress"
HELP = "make a smaller model file"
_SIMULATED_WINDOWS = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the model, the file and the recipe."""
    parser.add_argument("model", metavar="MODEL", help="a catalogue name, a .gguf file or a Hugging Face folder")
    parser.add_argument(
        "out", metavar="OUT", type=Path, nargs="?", help="the .gguf file to make, or a compressed-tensors folder"
    )
    parser.add_argument(
        "--recipe",
        default="int4",
        metavar="R",
        help="int8, int4, int4-fast, chapter, mixed ... or a YAML file (default: int4; docs/compression.md has all)",
    )
    _add_text_arguments(parser)
    _add_budget_arguments(parser)
    parser.add_argument(
        "--plot", type=output_file, metavar="FILE", help="for --recipe mixed: sensitivity by layer as a PNG"
    )
    parser.add_argument(
        "--simulate",
        type=Path,
        metavar="TEXT",
        help="write nothing: say what the recipe's activations cost on a text, those that no kernel runs as well",
    )
    parser.add_argument(
        "--device",
        default="auto",
        metavar="D",
        help="cpu (numpy), cuda, torch (torch on the CPU) or auto: cuda where torch finds it, else cpu (default)",
    )
    parser.add_argument("--estimate", action="store_true", help="write nothing: say what time and memory it will take")
    parser.add_argument("--force", action="store_true", help="replace OUT if it exists")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _add_text_arguments(parser: argparse.ArgumentParser) -> None:
    add_text_options(parser)
    parser.add_argument("--mix", metavar="NAME", help="draw calibration text by label: 'chapter' is 30/30/20/20")
    parser.add_argument("--samples", type=int, metavar="N", help="calibration windows (default: the recipe's)")
    parser.add_argument(
        "--tokens", type=int, metavar="N", help="tokens of a calibration window (default: the recipe's)"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="of every draw (default: the recipe's)")


def _add_budget_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--bits-per-weight", type=float, metavar="B", help="for --recipe mixed: what matrices may take on average"
    )
    parser.add_argument(
        "--ms-per-token", type=float, metavar="T", help="for --recipe mixed: what a token may take on this machine"
    )
    parser.add_argument(
        "--kv-tokens", type=int, metavar="N", help="for --recipe mixed: keys and values of N tokens share the bytes"
    )


def run(arguments: argparse.Namespace) -> int:
    """Compress, check, and say what was made.

    Raises:
        VivaceError: the model, the recipe or the output can never work, or the check failed.
    """
    from vivace.compress.device import open_device
    from vivace.compress.estimate import peak_resident_bytes
    from vivace.compress.output import check_output
    from vivace.compress.save import compress_file
    from vivace.files.catalogue import resolve

    recipe, text = _recipe(arguments), _text(arguments)
    if arguments.simulate is not None:
        return _simulate(arguments, recipe, text)
    if arguments.out is None:
        raise ConfigError("There is no file to make.", "Give OUT, or --simulate TEXT.")
    device = open_device(arguments.device)
    check_output(Path(arguments.model), arguments.out, overwrite=arguments.force)
    estimate = _foretold(arguments, recipe, text, device)
    if arguments.estimate:
        return 0
    started = time.perf_counter()
    in_use = text_in_use(arguments)
    if in_use is not None:
        text = _examined(arguments, text, in_use)
    with WorkProgress() as progress:
        saved = compress_file(
            resolve(arguments.model),
            arguments.out,
            recipe,
            text,
            progress,
            budget=_budget(arguments),
            overwrite=arguments.force,
            device=device,
        )
    if arguments.plot is not None:
        from vivace.compress.sensitivity_plot import plot_sensitivity

        plot_sensitivity(saved.sensitivities, arguments.plot)
    took = _Took(estimate, time.perf_counter() - started, peak_resident_bytes())
    if arguments.json:
        print(json.dumps(figures_of(saved) | took.figures()))
    else:
        print_summary(saved)
        print(took.sentence())
    return 0


@dataclass(frozen=True, slots=True)
class _Took:
    """What a run took beside what was foretold."""

    estimate: "Estimate"
    seconds: float
    peak_bytes: int

    def figures(self) -> dict[str, object]:
        return {**_predicted(self.estimate), "seconds": self.seconds, "peak_bytes": self.peak_bytes}

    def sentence(self) -> str:
        from vivace.compress.estimate import duration

        real = f"  took {duration(self.seconds)} and {self.peak_bytes / 1e6:.0f} MB"
        return f"{real}; foretold {duration(self.estimate.seconds)} and {self.estimate.peak_bytes / 1e6:.0f} MB"


def _predicted(estimate: "Estimate") -> dict[str, object]:
    return {
        "predicted_s": estimate.seconds,
        "predicted_most_s": estimate.seconds + estimate.more_s,
        "predicted_peak_bytes": estimate.peak_bytes,
        "predicted_tensor_bytes": estimate.tensor_bytes,
        "predicted_file_bytes": estimate.file_bytes,
    }


def _foretold(arguments: argparse.Namespace, recipe: "Recipe", text: "CalibrationText", device: "Device") -> "Estimate":
    """Said before the work: on standard error, or as the result with --estimate."""
    estimate = _measured(arguments, recipe, text, device)
    if arguments.estimate:
        stages = {"stages": dict(estimate.stages)}
        print(json.dumps(_predicted(estimate) | stages) if arguments.json else estimate.sentence())
    else:
        print(f"vivace: {estimate.sentence()}", file=sys.stderr, flush=True)
    return estimate


def _measured(arguments: argparse.Namespace, recipe: "Recipe", text: "CalibrationText", device: "Device") -> "Estimate":
    """Of the run or the search, and of the doctor before it."""
    from dataclasses import replace

    from vivace.compress.estimate import estimate_file
    from vivace.compress.estimate_search import estimate_search
    from vivace.files.catalogue import resolve

    source, out, force, budget = resolve(arguments.model), arguments.out, arguments.force, _budget(arguments)
    if budget is None:
        found = estimate_file(source, out, recipe, text, overwrite=force, device=device)
    else:
        found = estimate_search(source, out, recipe, budget, text, overwrite=force, device=device)
    in_use = text_in_use(arguments)
    if in_use is None:
        return found
    from vivace.cli.compress_doctor import foretell_doctor

    doctor = foretell_doctor(arguments.model, text, in_use)
    stages = {"doctor": doctor.seconds, **found.stages}
    return replace(found, stages=stages, peak_bytes=max(found.peak_bytes, doctor.peak_bytes))


def _budget(arguments: argparse.Namespace) -> "MixBudget | None":
    from vivace.compress.save import MixBudget
    from vivace.compress.smallest import parse_bound

    within = parse_bound(arguments.recipe)
    given = (arguments.bits_per_weight, arguments.ms_per_token)
    if any(value is not None and not value > 0 for value in (*given, arguments.kv_tokens)):
        raise ConfigError("A budget has to be above 0.", "Give --bits-per-weight 5.5, or --ms-per-token 5.")
    if given == (None, None) and arguments.kv_tokens is not None:
        raise ConfigError("--kv-tokens needs a budget.", "Give --bits-per-weight, --ms-per-token, or both.")
    if within is not None and given != (None, None):
        raise ConfigError(
            f"{arguments.recipe} finds its own budget.", "Leave out --bits-per-weight and --ms-per-token."
        )
    if within is not None:
        return MixBudget(within=within)
    return None if given == (None, None) else MixBudget(*given, arguments.kv_tokens)


def _simulate(arguments: argparse.Namespace, recipe: "Recipe", text: "CalibrationText") -> int:
    from vivace.compress.evaluate import EvaluationSettings
    from vivace.compress.simulation import simulate_file
    from vivace.files.catalogue import resolve

    if arguments.out is not None or arguments.bits_per_weight is not None:
        raise ConfigError("--simulate writes no file and mixes nothing.", "Leave out OUT and --bits-per-weight.")
    settings = EvaluationSettings(num_windows=_SIMULATED_WINDOWS)
    with WorkProgress() as progress:
        found = simulate_file(resolve(arguments.model), recipe, arguments.simulate, settings, text, report=progress)
    if arguments.json:
        parts = {"weights": found.weights.as_dict(), "whole": found.whole.as_dict()}
        print(json.dumps({"recipe": recipe.name, "activations": found.scheme, "clips": dict(found.clips), **parts}))
        return 0
    if found.clips:
        counts = Counter(found.clips.values())
        shares = ", ".join(f"{ratio:g} of {counts[ratio]}" for ratio in sorted(counts, reverse=True))
        print(f"share of its range that each input keeps: {shares}")
    for name, figures in (("weights alone", found.weights), (f"and {found.scheme}", found.whole)):
        print(
            f"{name:<32} perplexity {figures.ppl:.3f}, ratio {figures.ppl_ratio:.4f} ± {figures.ppl_ratio_error:.4f}, "
            f"KL divergence {figures.kld:.4f}, same top token {figures.same_top:.1%}"
        )
    return 0


def _recipe(arguments: argparse.Namespace) -> "Recipe":
    from dataclasses import replace

    from vivace.compress.recipe_file import find_recipe
    from vivace.compress.smallest import PREFIX
    from vivace.compress.tuning import without_missing

    mixed = arguments.recipe == "mixed" or arguments.recipe.startswith(PREFIX)
    if mixed != (_budget(arguments) is not None):
        raise ConfigError(
            "--recipe mixed and a budget belong together.", "Give --bits-per-weight 5.5, --ms-per-token 5, or both."
        )
    if arguments.plot is not None and not mixed:
        raise ConfigError("--plot needs --recipe mixed.", "Other recipes measure no sensitivity.")
    recipe, left_out = without_missing(find_recipe("int4-awq" if mixed else arguments.recipe))
    if left_out:
        print(f"vivace: {left_out}", file=sys.stderr)
    given = {name: value for name in ("samples", "tokens", "seed") if (value := getattr(arguments, name)) is not None}
    return replace(recipe, calibration=replace(recipe.calibration, **given))


def _text(arguments: argparse.Namespace) -> "CalibrationText":
    from dataclasses import replace

    from vivace.compress.calibration_text import MIXES

    if arguments.mix is not None and arguments.mix not in MIXES:
        raise ConfigError(f"There is no mix {arguments.mix!r}.", f"Choose one of {', '.join(MIXES)}.")
    text = calibration_text(arguments)
    if arguments.mix is not None and not (text.paths or text.logs):
        raise ConfigError("A mix needs text to draw from.", "Give it with --calibrate-on.")
    return replace(text, mix=MIXES.get(arguments.mix))


def _examined(arguments: argparse.Namespace, text: "CalibrationText", in_use: "CalibrationText") -> "CalibrationText":
    """Let the doctor look; a one-sided set is told of, and drawn by the kinds that it has."""
    from dataclasses import replace

    from vivace.cli.compress_doctor import examine

    found = examine(arguments.model, text, in_use)
    for sentence in found.complaints:
        print(f"vivace: calibration is one-sided: {sentence}", file=sys.stderr)
    if found.is_good or arguments.mix is not None or not found.shares:
        return text
    return replace(text, mix=found.shares, by_kind=True)
