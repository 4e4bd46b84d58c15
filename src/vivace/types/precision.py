"""Levels of precision of nested weights: which rows of a step read eight bits of which matrices.

A level is a number of a row, so rows of different levels share a batch; a matrix has the least level that reads all of
it. Nothing here computes.
"""

LEVEL_NAMES = ("low", "mixed", "full")
"""Level 0: four bits everywhere; 1: eight in the first and last third of the layers; 2: eight everywhere."""
LOW, MIXED, FULL = range(3)


def full_level(weight: str, num_layers: int) -> int:
    """The least level whose rows read all bits of a weight: as in 18.2.3, the outer thirds are kept high."""
    if not weight.startswith("layers."):
        return MIXED
    third = 3 * int(weight.split(".")[1]) // num_layers
    return FULL if third == 1 else MIXED
