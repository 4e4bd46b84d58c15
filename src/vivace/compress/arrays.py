"""The seam between numpy and torch: the arithmetic of compression is written once and runs on either's arrays.

A function asks `namespace(array)` for the module whose functions its arrays take; both know the numpy names that are
used here. What the two spell differently is below. Torch is not imported here: who holds a tensor has imported it.
"""

import sys
from typing import Any

import numpy as np

Array = Any
"""A numpy array, or a torch tensor on some device."""
LARGEST_HALF = 65504.0


def namespace(array: Array) -> Any:
    """numpy, or torch for a tensor."""
    return np if isinstance(array, np.ndarray | np.generic) else sys.modules["torch"]


def single(array: Array) -> Array:
    """float32 of the same kind; the array itself when it is."""
    return array.astype(np.float32, copy=False) if isinstance(array, np.ndarray) else array.float()


def double(array: Array) -> Array:
    """float64 of the same kind."""
    return array.astype(np.float64) if isinstance(array, np.ndarray) else array.double()


def integers(array: Array) -> Array:
    """int16 of the same kind."""
    return array.astype(np.int16) if isinstance(array, np.ndarray) else array.short()


def through_half(array: Array, limit: float = LARGEST_HALF) -> Array:
    """float32 rounded to what float16 holds, after a cut at `limit`."""
    bounded = namespace(array).clip(array, -limit, limit)
    return bounded.astype(np.float16).astype(np.float32) if isinstance(array, np.ndarray) else bounded.half().float()


def copied(array: Array) -> Array:
    """A copy in row order."""
    return array.copy(order="C") if isinstance(array, np.ndarray) else array.clone().contiguous()


def contiguous(array: Array) -> Array:
    """The array in row order, copied only if it has to be."""
    return np.ascontiguousarray(array) if isinstance(array, np.ndarray) else array.contiguous()


def on_host(array: Array) -> Any:
    """A numpy array of the same values."""
    return array if isinstance(array, np.ndarray) else array.cpu().numpy()


def like(array: Array, other: Array) -> Array:
    """A numpy array as the kind, and on the device, of another."""
    return array if isinstance(other, np.ndarray) else sys.modules["torch"].as_tensor(array).to(other.device)


def eye_like(matrix: Array) -> Array:
    """The identity of a square matrix's size, kind and type."""
    xp, size = namespace(matrix), len(matrix)
    return xp.eye(size, dtype=matrix.dtype) if xp is np else xp.eye(size, dtype=matrix.dtype, device=matrix.device)


def cholesky(matrix: Array) -> Array | None:
    """The lower Cholesky factor; None when the matrix is not positive definite."""
    try:
        return namespace(matrix).linalg.cholesky(matrix)
    except (np.linalg.LinAlgError, RuntimeError):  # torch's error is a RuntimeError
        return None


def invert_upper(matrix: Array) -> Array:
    """The inverse of an upper triangular matrix."""
    if isinstance(matrix, np.ndarray):
        return np.linalg.inv(matrix)
    return namespace(matrix).linalg.solve_triangular(matrix, eye_like(matrix), upper=True)
