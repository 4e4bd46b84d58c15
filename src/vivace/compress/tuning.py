"""After rounding: scales and norms are tuned end to end, codes stay.

Chen et al., "EfficientQAT" (2024), second phase; norms as in Li et al., "Norm tweaking" (2023). What is lowered is the
KL divergence from the source on calibration windows; an eighth of the windows is held out and decides which of the
states on the way is kept, and when to stop. Torch does it (extra `torch`), on the CPU or on CUDA; imported when needed.
"""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vivace.compress.layout import Layout
from vivace.compress.progress import Report
from vivace.compress.recipe import CalibrationSettings, Recipe, TuningSettings
from vivace.compress.stored import StoredWeights
from vivace.execute.score import Tokens
from vivace.types.errors import ConfigError
from vivace.types.model import ModelSpec
from vivace.types.weights import WeightSource

if TYPE_CHECKING:
    from vivace.compress.checkpoint import Checkpoint
    from vivace.compress.device import Device

HELD_OUT = 8  # every eighth window
CHECKS = 8  # of the windows held out, over all steps, after one before them
_DRAW = 2  # seeds after that of calibration; the next one draws what searches measure on
_MISSING = "tunes scales end to end, which needs torch"
_MEND = "pip install 'vivace[torch]'"


@dataclass(frozen=True, slots=True)
class Tuning:
    """What tuning did: steps taken, and the KL divergence in nats on the windows held out, before and after."""

    num_steps: int
    before: float
    after: float


def without_missing(recipe: Recipe) -> tuple[Recipe, str]:
    """The recipe as far as this machine can follow it, and a sentence on what is left out, "" when nothing is.

    Raises:
        ConfigError: tuning is asked for, is not optional, and there is no torch.
    """
    if recipe.tuning is None or importlib.util.find_spec("torch") is not None:
        return recipe, ""
    if not recipe.tuning.optional:
        raise ConfigError(f"The recipe {recipe.name!r} {_MISSING}.", f"{_MEND}, or leave out 'tuning'.")
    return replace(recipe, tuning=None), f"{recipe.name} {_MISSING} ({_MEND}); it goes without."


def tuning_settings(calibration: CalibrationSettings, tuning: TuningSettings) -> CalibrationSettings:
    """How the windows of tuning are drawn: as long as those of calibration, by another draw."""
    return replace(calibration, samples=tuning.samples, seed=calibration.seed + _DRAW)


@dataclass(frozen=True, slots=True, eq=False)
class TuningTask:
    """What there is to tune.

    Attributes:
        spec: what the model is.
        source: its tensors, whose logits are the aim.
        rounded: the tensors to tune.
        layout: of `rounded`.
        settings: how.
        windows: of tokens; every HELD_OUT-th is held out, the last if there are fewer.
        seed: of the order in which they are read.
    """

    spec: ModelSpec
    source: WeightSource
    rounded: StoredWeights
    layout: Layout
    settings: TuningSettings
    windows: Sequence[Tokens]
    seed: int = 0


def tuned_weights(
    task: TuningTask, device: "Device", report: Report, checkpoint: "Checkpoint | None" = None
) -> tuple[StoredWeights, Tuning]:
    """The rounded weights under scales that serve better, and what was gained.

    Args:
        task: what to tune.
        device: CUDA where its name says so, else torch on the CPU.
        report: told how far it is.
        checkpoint: where progress is kept, and taken up again.

    Raises:
        ConfigError: there are fewer than two windows, or the model's head cannot be gone through.
    """
    if len(task.windows) < 2:
        raise ConfigError("There are too few windows to tune scales on.", "Give more text, or leave out 'tuning'.")
    from vivace.compress.torch_training import Training

    training = Training(task, "cuda" if device.name.endswith("cuda") else "cpu")
    found = training.run(report, checkpoint)
    return StoredWeights(training.stored(), task.rounded), found
