"""Quantise after training or while training: the chapter's rule, what has been measured, and what we would do.

Chapter 18.2.4, its decision tree, as rows. Opens no model.
"""

from dataclasses import dataclass

from vivace.plan.quality_curves import Prediction, predict_quality
from vivace.types.errors import ConfigError

GOALS = ("quality", "speed")
"""What matters more: as little loss as possible, or to be done soon."""


@dataclass(frozen=True, slots=True)
class MethodAdvice:
    """What the chapter says, what was found, and what we recommend, in sentences; with the curves they rest on."""

    chapter: str
    found: str
    recommended: str
    plain: Prediction
    calibrated: Prediction


def advise_method(billions: float, bits: int, goal: str) -> MethodAdvice:
    """How to quantise a model.

    Args:
        billions: parameters in billions.
        bits: code width that is wanted, 2 to 8.
        goal: a name of GOALS.

    Raises:
        ConfigError: a value out of range.
    """
    if not billions > 0:
        raise ConfigError(f"{billions:g} billion parameters were given.", "Give a size such as 1.5B.")
    if not 2 <= bits <= 8:
        raise ConfigError(f"{bits} bits were asked for.", "Choose 2 to 8 bits.")
    if goal not in GOALS:
        raise ConfigError(f"There is no goal {goal!r}.", f"Choose one of {', '.join(GOALS)}.")
    stored = bits + 0.5  # scales in groups of 32
    plain, calibrated = (predict_quality(billions, stored, method) for method in ("rounding", "calibrated"))
    return MethodAdvice(
        _chapter_rule(billions, bits, goal), _found(billions, bits), _advice(bits, calibrated), plain, calibrated
    )


def _chapter_rule(billions: float, bits: int, goal: str) -> str:
    if billions < 1:
        return "Under 1B: PTQ is usually enough."
    if billions <= 10:
        return "1B to 10B, quality first: QAT." if goal == "quality" else "1B to 10B, soon: PTQ and mixed precision."
    return "Over 10B in INT8: PTQ will do." if bits >= 8 else "Over 10B in INT4: QAT, or advanced PTQ."


def _found(billions: float, bits: int) -> str:
    if bits >= 8:
        return "Rounding to 8 bits cost under 0.1 % of perplexity at 7B and 8B (llama.cpp PR 6936)."
    if billions < 1:
        return (
            "The smaller the model, the more it loses: plain 4-bit rounding cost SmolLM2 135M 21 % of perplexity, "
            "weighing by the inputs 13 % (docs/compression.md); at 7B and 70B it is 1.4 % and 1.2 %."
        )
    if bits >= 4:
        return "4-bit k-quants cost 1.4 % of perplexity at 7B, 2.8 % at 8B (Llama 3), 1.2 % at 70B, without training."
    return (
        "3-bit rounding cost 5 % to 9 % at 70B and 56 % at 8B (Llama 3); 2-bit codes tuned with data 11 % "
        "at 7B and 21 % at 70B (llama.cpp, AQLM)."
    )


def _advice(bits: int, calibrated: Prediction) -> str:
    if bits >= 8:
        return "PTQ: the recipe int8. Nothing is left for training to win."
    if calibrated.recovery >= 0.97:
        return "Calibrated PTQ: the recipe int4; train only if the quality report misses its limit."
    if bits >= 4:
        return "Calibrated PTQ with mixed precision (the recipe mixed); if that is too large, QAT."
    return "QAT, or tuned vector codes: rounding is expected to lose more than a smaller model at more bits would."
