"""How long work tells of itself."""

from collections.abc import Callable

Report = Callable[[int, int, str], None]
"""(steps done, steps in all, what is being done)."""
Lap = Callable[[str, str], None]
"""Told when a stage ends: "inputs", "observe", "fold", "round", "advance" or "keep", and its segment or tensor."""
