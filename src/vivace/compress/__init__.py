"""Smaller weights: quantisers, calibration, methods that keep the quality, and the figures that show what was kept."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vivace.compress.api import compress, foretell

__all__ = ["compress", "foretell"]


def __getattr__(name: str) -> Any:
    """Load the Python API when it is first asked for."""
    if name in __all__:
        from vivace.compress import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
