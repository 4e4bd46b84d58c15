"""How the scale and offset of a group are chosen: one rule a row of SCALE_RULES.

A rule maps groups of weights and the importance of each weight to an `Affine`, already rounded to the type that scales
are stored in, so that what is measured here is what is deployed.
"""

from collections.abc import Callable

import numpy as np

from vivace.compress.quantizers import round_to_grid
from vivace.compress.schemes import Affine, Floats, QuantScheme
from vivace.types.errors import ConfigError

ScaleRule = Callable[[Floats, QuantScheme, Floats | None], Affine]
"""(groups (rows, groups, columns), scheme, importance broadcastable to the groups or None) -> scales and offsets."""

PERCENTILE = 99.9  # chapter 18.2.2, calibrate_scale
_SHRINK_STEPS = 19
_LARGEST_SHRINK = 0.4


def fit_scales(matrix: Floats, scheme: QuantScheme, rule: str, importance: Floats | None = None) -> Affine:
    """Choose scales for a matrix.

    Args:
        matrix: float32 (out_features, in_features).
        scheme: the grid.
        rule: a name of SCALE_RULES.
        importance: float32 (in_features,), how much an error in a column weighs, or None for all the same.

    Raises:
        ConfigError: an unknown rule, weights that are not finite, or a group size that does not divide the rows.
    """
    if rule not in SCALE_RULES:
        raise ConfigError(f"There is no scale rule {rule!r}.", f"Choose one of {', '.join(SCALE_RULES)}.")
    if not np.isfinite(matrix).all():
        raise ConfigError("A weight is infinite or not a number.", "The model is damaged; get it again.")
    groups = scheme.grouped(matrix)
    weighed = None
    if importance is not None:
        weighed = (
            scheme.grouped(np.broadcast_to(importance, matrix.shape))
            if scheme.granularity == "tensor"
            else (scheme.grouped(importance[None, :]))
        )
    return SCALE_RULES[rule](groups, scheme, weighed)


def min_max(groups: Floats, scheme: QuantScheme, _importance: Floats | None = None) -> Affine:
    """The whole range of the weights: no clipping. The usual round-to-nearest."""
    return _spanning(groups.min(axis=-1), groups.max(axis=-1), scheme)


def percentile(groups: Floats, scheme: QuantScheme, _importance: Floats | None = None) -> Affine:
    """The range that 99.9 % of the weights lie in (chapter 18.2.2). Groups under 1,000 weights keep about all."""
    if scheme.is_symmetric:
        reach = np.percentile(np.abs(groups), PERCENTILE, axis=-1).astype(np.float32)
        largest_is_negative = -groups.min(axis=-1) > groups.max(axis=-1)
        low, high = np.where(largest_is_negative, -reach, 0), np.where(largest_is_negative, 0, reach)
        return _spanning(low.astype(np.float32), high.astype(np.float32), scheme)
    low, high = np.percentile(groups, [100 - PERCENTILE, PERCENTILE], axis=-1).astype(np.float32)
    return _spanning(low, high, scheme)


def least_squares(groups: Floats, scheme: QuantScheme, importance: Floats | None = None) -> Affine:
    """The least (weighted) squared error over a row of clippings, each refined by a least-squares fit to its codes.

    Clipping a few weights buys a finer grid for all others. With importance E[x^2] of the inputs the error is that of
    the layer's output when inputs do not correlate.
    """
    low, high = groups.min(axis=-1), groups.max(axis=-1)
    best = _spanning(low, high, scheme)
    least = _squared_error(groups, scheme, best, importance)
    for shrink in np.linspace(1.1, _LARGEST_SHRINK, _SHRINK_STEPS, dtype=np.float32):
        start = _spanning(low * shrink, high * shrink, scheme)
        for candidate in (start, _refit(groups, scheme, start, importance)):
            error = _squared_error(groups, scheme, candidate, importance)
            better = error < least
            least = np.where(better, error, least)
            best = Affine(
                np.where(better, candidate.scales, best.scales), np.where(better, candidate.offsets, best.offsets)
            )
    return best


SCALE_RULES: dict[str, ScaleRule] = {"minmax": min_max, "percentile": percentile, "mse": least_squares}


def _spanning(low: Floats, high: Floats, scheme: QuantScheme) -> Affine:
    """Scales whose codes reach from `low` to `high`."""
    match scheme.kind:
        case "symmetric":
            scale: Floats = np.maximum(np.abs(low), np.abs(high)) / np.float32(scheme.high)
            return _stored(scale, np.zeros_like(scale), scheme)
        case "full_symmetric":  # the weight of largest size takes the code that has no opposite
            scale = np.where(-low > high, low, high) / np.float32(scheme.low)
            return _stored(scale, np.zeros_like(scale), scheme)
        case "zero_point":
            low, high = np.minimum(low, 0), np.maximum(high, 0)
            return _with_zero_point((high - low) / np.float32(scheme.high), low, scheme)
        case "minimum":
            return _stored((high - low) / np.float32(scheme.high), low, scheme)


def _with_zero_point(scale: Floats, low: Floats, scheme: QuantScheme) -> Affine:
    stored = _stored(scale, np.zeros_like(scale), scheme).scales
    zero = np.clip(np.rint(-low / stored), scheme.low, scheme.high).astype(np.float32)
    return Affine(stored, -zero * stored)


def _stored(scale: Floats, offset: Floats, scheme: QuantScheme) -> Affine:
    """Rounded to the stored type; a scale of 0 (a group of zeros, or of equal weights) becomes a harmless one."""
    if scheme.scale_type == "F16":
        scale, offset = (np.clip(v, -65504, 65504).astype(np.float16).astype(np.float32) for v in (scale, offset))
    return Affine(np.where(scale == 0, np.float32(1.0), scale), offset)


def _refit(groups: Floats, scheme: QuantScheme, affine: Affine, importance: Floats | None) -> Affine:
    """The best scale (and offset) for the codes that `affine` leads to, by weighted least squares."""
    codes = round_to_grid(groups, scheme, affine)
    weights = np.float32(1.0) if importance is None else importance
    with np.errstate(divide="ignore", invalid="ignore"):
        if scheme.is_symmetric or scheme.kind == "zero_point":
            centred = codes if scheme.is_symmetric else codes + (affine.offsets / affine.scales)[:, :, None]
            scale = (weights * groups * centred).sum(-1) / (weights * centred * centred).sum(-1)
            scale = np.where(np.isfinite(scale), scale, affine.scales).astype(np.float32)
            if scheme.is_symmetric:
                return _stored(scale, np.zeros_like(scale), scheme)
            return _with_zero_point(np.abs(scale), affine.offsets / affine.scales * np.abs(scale), scheme)
        total = (weights * np.ones_like(groups)).sum(-1)
        mean_code = (weights * codes).sum(-1) / total
        mean_value = (weights * groups).sum(-1) / total
        spread = codes - mean_code[:, :, None]
        scale = (weights * spread * groups).sum(-1) / (weights * spread * spread).sum(-1)
    scale = np.where(np.isfinite(scale), scale, affine.scales).astype(np.float32)
    return _stored(scale, (mean_value - scale * mean_code).astype(np.float32), scheme)


def _squared_error(groups: Floats, scheme: QuantScheme, affine: Affine, importance: Floats | None) -> Floats:
    difference = round_to_grid(groups, scheme, affine)
    difference *= affine.scales[:, :, None]
    difference += affine.offsets[:, :, None] - groups
    difference *= difference
    if importance is not None:
        difference *= importance
    error: Floats = difference.sum(axis=-1)
    return error
