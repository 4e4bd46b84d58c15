"""Random numbers without state: one uniform number for each (seed, choice, position), the same on every machine.

The finaliser of SplitMix64 (Steele, Lea and Flood, 2014) mixes the three integers one after the other; a full avalanche
after each makes neighbouring seeds, choices and positions independent for every statistic the tests try.
"""

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


def uniform(seed: int, choice: int, position: int) -> float:
    """A number uniform in [0, 1) with 53 random bits, a pure function of its arguments.

    Args:
        seed: any integer; taken modulo 2^64.
        choice: number of the answer within its request.
        position: index of the token to draw, counted from the first token of the prompt.
    """
    state = _mix(seed + _GOLDEN)
    state = _mix(state ^ _mix((choice + 1) * _GOLDEN))
    return (_mix(state + (position + 1) * _GOLDEN) >> 11) * 2.0**-53


def redraw_seed(seed: int, attempt: int) -> int:
    """The seed of an answer that was taken back so often to be drawn anew; the first attempt has the seed itself."""
    return seed if attempt == 0 else _mix(seed ^ _mix(attempt * _GOLDEN))


def _mix(value: int) -> int:
    value &= _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)
