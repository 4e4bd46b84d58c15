"""What activations become when an op reads them in less than float32: one rounding a row of ROUNDINGS.

The integer rows are the twins of what the native core makes of the inputs of quantised linears
(native/kernels/rows.inc), so that the oracle can compute what the kernels do.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vivace.numerics.input_grids import GROUP, coarse_values, fine_values, on_grid
from vivace.numerics.turned import to_int8_turned
from vivace.types.errors import ConfigError
from vivace.types.input_scheme import InputGrid

Floats = NDArray[np.float32]


def round_to(precision: str, rows: Floats, grid: InputGrid | None = None) -> Floats:
    """Rows as an op of `precision` reads them, float32 of their shape; on a grid of their own where one is given.

    Raises:
        ConfigError: there is no such precision, or groups of 32 do not divide the rows of an integer one.
    """
    if precision not in ROUNDINGS:
        raise ConfigError(f"There is no precision {precision!r}.", f"Known are {', '.join(ROUNDINGS)}.")
    if grid is not None:
        _check_width(rows)
        return on_grid(rows, grid, fine=precision == "int12")
    return ROUNDINGS[precision](rows)


def to_bf16(rows: Floats) -> Floats:
    """The nearest bfloat16, halves to even; 8 significant bits."""
    bits = np.ascontiguousarray(rows).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return rounded.view(np.float32)


def to_f16(rows: Floats) -> Floats:
    """The nearest float16, 11 significant bits; what is beyond 65504 becomes infinite, as in such an op it would."""
    with np.errstate(over="ignore"):
        return rows.astype(np.float16).astype(np.float32)


def to_int8(rows: Floats) -> Floats:
    """Groups of 32 columns as 127 steps either way."""
    groups, largest = _groups(rows)
    return coarse_values(groups, largest, 127).reshape(rows.shape)


def to_int12(rows: Floats) -> Floats:
    """Groups of 32 columns as 12-bit numbers; columns i and i + 16 share their low bits (native/kernels/calls.h)."""
    groups, largest = _groups(rows)
    return fine_values(groups, largest).reshape(rows.shape)


def _groups(rows: Floats) -> tuple[Floats, Floats]:
    """Groups (n, 32) and the largest magnitude of each (n, 1)."""
    _check_width(rows)
    groups = rows.reshape(-1, GROUP)
    return groups, np.abs(groups).max(axis=1, keepdims=True)


def _check_width(rows: Floats) -> None:
    if rows.shape[-1] % GROUP:
        raise ConfigError(
            f"Rows of {rows.shape[-1]} columns are no whole number of groups of {GROUP}.", "Read them in bf16."
        )


ROUNDINGS: dict[str, Callable[[Floats], Floats]] = {
    "f32": lambda rows: rows,
    "bf16": to_bf16,
    "f16": to_f16,
    "int12": to_int12,
    "int8": to_int8,
    "int8-turned": to_int8_turned,
}
