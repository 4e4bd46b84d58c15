"""How the scale and offset of a group are chosen: one rule a row of SCALE_RULES.

A rule maps groups of weights and the importance of each weight to an `Affine`, already rounded to the type that scales
are stored in, so that what is measured here is what is deployed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np

from vivace.compress.quantizers import round_to_grid
from vivace.compress.schemes import Affine, Floats, QuantScheme
from vivace.numerics import nested
from vivace.types.errors import ConfigError

ScaleRule = Callable[[Floats, QuantScheme, Floats | None], Affine]
"""(groups (rows, groups, columns), scheme, importance broadcastable to the groups or None) -> scales and offsets."""

PERCENTILE = 99.9  # chapter 18.2.2, calibrate_scale
_SHRINK_STEPS = 13
_LARGEST_SHRINK = 0.45


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
    weights = np.ones_like(groups[:1, :, :]) if importance is None else importance
    sums = _Sums.of(groups, np.broadcast_to(weights, (weights.shape[0], *groups.shape[1:])))
    best = _spanning(low, high, scheme)
    least = sums.error(round_to_grid(groups, scheme, best), best)
    for shrink in np.linspace(1.1, _LARGEST_SHRINK, _SHRINK_STEPS, dtype=np.float32):
        start = _spanning(low * shrink, high * shrink, scheme)
        codes = round_to_grid(groups, scheme, start)
        candidate = sums.refit(codes, start, scheme)
        error = sums.error(codes, candidate)
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
            reach: Floats = np.maximum(np.abs(low), np.abs(high))
            return _stored(reach / np.float32(scheme.high), np.zeros_like(reach), scheme)
        case "nested":
            return _stored(nested.spanning_scale(low, high), np.zeros_like(low), scheme)
        case "full_symmetric":  # the weight of largest size takes the code that has no opposite
            extreme: Floats = np.where(-low > high, low, high)
            return _stored(extreme / np.float32(scheme.low), np.zeros_like(extreme), scheme)
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
        limit = nested.LARGEST_SCALE if scheme.kind == "nested" else 65504
        scale, offset = (np.clip(v, -limit, limit).astype(np.float16).astype(np.float32) for v in (scale, offset))
    return Affine(np.where(scale == 0, np.float32(1.0), scale), offset)


@dataclass(frozen=True, slots=True)
class _Sums:
    """Weighted sums over groups that every candidate shares: w, w x, w x^2 (w broadcasts over rows)."""

    weights: Floats
    weighed: Floats
    total: Floats
    values: Floats
    squares: Floats

    @classmethod
    def of(cls, groups: Floats, weights: Floats) -> Self:
        weighed = weights * groups
        return cls(weights, weighed, weights.sum(-1), weighed.sum(-1), _dot(weighed, groups))

    def refit(self, codes: Floats, start: Affine, scheme: QuantScheme) -> Affine:
        """The best scale (and offset) for codes, by weighted least squares; `start`'s where there is none."""
        zero = start.offsets / start.scales
        centred = codes if scheme.is_symmetric else codes + zero[:, :, None]
        if scheme.kind == "minimum":
            mean = _dot(self.weights, codes) / self.total
            centred = codes - mean[:, :, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            scale = _dot(self.weighed, centred) / _dot(self.weights * centred, centred)
        scale = np.where(np.isfinite(scale), scale, start.scales)
        match scheme.kind:
            case "zero_point":
                return _with_zero_point(np.abs(scale), zero * np.abs(scale), scheme)
            case "minimum":
                return _stored(scale, self.values / self.total - scale * mean, scheme)
            case _:
                return _stored(scale, np.zeros_like(scale), scheme)

    def error(self, codes: Floats, affine: Affine) -> Floats:
        """Weighted squared error of reading `codes` back, up to rounding: |x - s q - o|^2 multiplied out."""
        scale, offset = affine.scales, affine.offsets
        error: Floats = (
            self.squares - 2 * scale * _dot(self.weighed, codes) + scale * scale * _dot(self.weights * codes, codes)
        )
        if offset.any():
            error += offset * (2 * scale * _dot(self.weights, codes) - 2 * self.values + offset * self.total)
        return error


def _dot(a: Floats, b: Floats) -> Floats:
    """Sum over the columns of each group; `a` or `b` may have one row for all."""
    product: Floats = np.einsum("rgc,rgc->rg", *np.broadcast_arrays(a, b))
    return product
