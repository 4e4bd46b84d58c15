"""How the scale and offset of a group are chosen: one rule a row of SCALE_RULES.

A rule maps groups of weights and the importance of each weight to an `Affine`, already rounded to the type that scales
are stored in, so that what is measured here is what is deployed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np

from vivace.compress.arrays import LARGEST_HALF, Array, double, like, namespace, on_host, single, through_half
from vivace.compress.quantizers import round_to_grid
from vivace.compress.schemes import Affine, Floats, QuantScheme
from vivace.numerics import nested
from vivace.types.errors import ConfigError

ScaleRule = Callable[[Floats, QuantScheme, Floats | None], Affine]
"""(groups (rows, groups, columns), scheme, importance broadcastable to the groups or None) -> scales and offsets."""

PERCENTILE = 99.9  # chapter 18.2.2, calibrate_scale
_COARSE_CLIPPINGS = np.linspace(1.1, 0.45, 13, dtype=np.float32).tolist()
_FINE_CLIPPINGS = np.linspace(1.3, 0.97, 32, dtype=np.float32).tolist()
_FINE_BITS = 6  # from here on clipping does not pay, and what helps is a scale whose steps meet the weights
_NOISE = 1e-6  # of a group's weighed squares: an error below it is none, as errors are differences of float32 sums
_ALL_BITS_WEIGHT = 16.0  # clipping helps four bits and hurts eight; their errors differ by about 256


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
    xp = namespace(matrix)
    if not xp.isfinite(matrix).all():
        raise ConfigError("A weight is infinite or not a number.", "The model is damaged; get it again.")
    groups = scheme.grouped(matrix)
    weighed = None
    if importance is not None:
        weighed = (
            scheme.grouped(xp.broadcast_to(importance, matrix.shape))
            if scheme.granularity == "tensor"
            else (scheme.grouped(importance[None, :]))
        )
    if scheme.group_rows != 1:
        return _tied(groups, scheme, SCALE_RULES[rule], weighed)
    return SCALE_RULES[rule](groups, scheme, weighed)


def _tied(groups: Floats, scheme: QuantScheme, rule: ScaleRule, importance: Floats | None) -> Affine:
    """One scale for a tile of `group_rows` rows, in each of them; the last tile of a matrix may have fewer.

    In float64: sums over a tile may have millions of terms.
    """
    xp = namespace(groups)
    rows, count, size = groups.shape
    together = min(scheme.group_rows or rows, rows)
    pieces = []
    for begin, end in ((0, rows - rows % together), (rows - rows % together, rows)):
        if begin == end:
            continue
        height = min(together, end - begin)
        cut = double(groups[begin:end]).reshape(-1, height, count, size)
        tiles = xp.swapaxes(cut, 1, 2).reshape(-1, count, height * size)
        weights = None
        if importance is not None:
            spread = xp.broadcast_to(importance[:, :, None, :], (1, count, height, size))
            weights = spread.reshape(1, count, height * size)
        found = rule(tiles, scheme, weights)
        whole = (len(tiles), height, count)
        numbers = (single(found.scales), single(found.offsets))
        pieces.append([xp.broadcast_to(each[:, None], whole).reshape(-1, count) for each in numbers])
    return Affine(*(xp.concatenate(parts) for parts in zip(*pieces, strict=True)))


def min_max(groups: Floats, scheme: QuantScheme, _importance: Floats | None = None) -> Affine:
    """The whole range of the weights: no clipping. The usual round-to-nearest."""
    xp = namespace(groups)
    return _spanning(xp.amin(groups, axis=-1), xp.amax(groups, axis=-1), scheme)


def percentile(groups: Floats, scheme: QuantScheme, _importance: Floats | None = None) -> Affine:
    """The range that 99.9 % of the weights lie in (chapter 18.2.2). Groups under 1,000 weights keep about all."""
    held = on_host(groups)  # a single pass: not worth a device
    if scheme.is_symmetric:
        reach = np.percentile(np.abs(held), PERCENTILE, axis=-1).astype(np.float32)
        largest_is_negative = -held.min(axis=-1) > held.max(axis=-1)
        low, high = np.where(largest_is_negative, -reach, 0), np.where(largest_is_negative, 0, reach)
    else:
        low, high = np.percentile(held, [100 - PERCENTILE, PERCENTILE], axis=-1)
    low, high = (like(edge.astype(np.float32), groups) for edge in (low, high))
    return _spanning(low, high, scheme)


def least_squares(groups: Floats, scheme: QuantScheme, importance: Floats | None = None) -> Affine:
    """The least (weighted) squared error over a row of clippings, each refined by a least-squares fit to its codes.

    Clipping a few weights buys a finer grid for all others; with many bits no weight is worth it, and a somewhat
    coarser grid that happens to meet more of them is looked for instead. With importance E[x^2] of the inputs the error
    is that of the layer's output when inputs do not correlate.
    """
    xp = namespace(groups)
    low, high = xp.amin(groups, axis=-1), xp.amax(groups, axis=-1)
    weights = xp.ones_like(groups[:1, :, :]) if importance is None else importance
    sums = _Sums.of(groups, xp.broadcast_to(weights, (weights.shape[0], *groups.shape[1:])))
    best = _spanning(low, high, scheme)
    least = _loss(sums, round_to_grid(groups, scheme, best), best, scheme)
    lies_on_grid = least <= _NOISE * sums.squares
    for shrink in _FINE_CLIPPINGS if scheme.bits >= _FINE_BITS and scheme.kind != "nested" else _COARSE_CLIPPINGS:
        start = _spanning(low * shrink, high * shrink, scheme)
        codes = round_to_grid(groups, scheme, start)
        candidate = sums.refit(codes, start, scheme)
        error = _loss(sums, codes, candidate, scheme)
        better = (error < least) & ~lies_on_grid
        least = xp.where(better, error, least)
        best = Affine(
            xp.where(better, candidate.scales, best.scales), xp.where(better, candidate.offsets, best.offsets)
        )
    return best


def _loss(sums: "_Sums", codes: Floats, affine: Affine, scheme: QuantScheme) -> Floats:
    """The error that a candidate is judged by: of nested codes that of the high halves alone, and of all bits."""
    error = sums.error(codes, affine)
    if scheme.kind == "nested":
        high = like(nested.high_halves(on_host(codes)), codes)
        error = sums.error(high, affine) + _ALL_BITS_WEIGHT * error
    return error


SCALE_RULES: dict[str, ScaleRule] = {"minmax": min_max, "percentile": percentile, "mse": least_squares}


def _spanning(low: Array, high: Array, scheme: QuantScheme) -> Affine:
    """Scales whose codes reach from `low` to `high`."""
    xp = namespace(low)
    match scheme.kind:
        case "symmetric":
            reach: Floats = xp.maximum(xp.abs(low), xp.abs(high))
            return stored_affine(reach / scheme.high, xp.zeros_like(reach), scheme)
        case "nested":
            scale = like(nested.spanning_scale(on_host(low), on_host(high)), low)
            return stored_affine(scale, xp.zeros_like(low), scheme)
        case "full_symmetric":  # the weight of largest size takes the code that has no opposite
            extreme: Floats = xp.where(-low > high, low, high)
            return stored_affine(extreme / scheme.low, xp.zeros_like(extreme), scheme)
        case "zero_point":
            low, high = xp.clip(low, None, 0), xp.clip(high, 0, None)
            return _with_zero_point((high - low) / (scheme.high - scheme.low), low, scheme)
        case "minimum":
            scale = (high - low) / (scheme.high - scheme.low)
            return stored_affine(scale, low - scheme.low * scale, scheme)


def _with_zero_point(scale: Array, low: Array, scheme: QuantScheme) -> Affine:
    """The whole zero point for which the lowest code stands nearest to `low`."""
    xp = namespace(scale)
    stored = stored_affine(scale, xp.zeros_like(scale), scheme).scales
    zero = xp.clip(xp.round(scheme.low - low / stored), scheme.low, scheme.high)
    offset = 0 - zero * stored  # and never -0, which a file that holds zero points could not give back
    return Affine(stored, through_half(offset, LARGEST_HALF) if scheme.scale_type == "F16" else offset)


def stored_affine(scale: Array, offset: Array, scheme: QuantScheme) -> Affine:
    """Rounded to the stored type; a scale of 0 (a group of zeros, or of equal weights) becomes a harmless one."""
    if scheme.scale_type == "F16":
        limit = nested.LARGEST_SCALE if scheme.kind == "nested" else LARGEST_HALF
        scale, offset = through_half(scale, limit), through_half(offset, limit)
    xp = namespace(scale)
    return Affine(xp.where(scale == 0, xp.ones_like(scale), scale), offset)


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
        xp = namespace(scale)
        scale = xp.where(xp.isfinite(scale), scale, start.scales)
        match scheme.kind:
            case "zero_point":
                return _with_zero_point(xp.abs(scale), (zero + scheme.low) * xp.abs(scale), scheme)
            case "minimum":
                return stored_affine(scale, self.values / self.total - scale * mean, scheme)
            case _:
                return stored_affine(scale, xp.zeros_like(scale), scheme)

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
    xp = namespace(a)
    pair = np.broadcast_arrays(a, b) if xp is np else xp.broadcast_tensors(a, b)
    product: Floats = xp.einsum("rgc,rgc->rg", *pair)
    return product
