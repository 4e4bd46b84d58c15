"""One number on a grid: the chapter's exercise 3, and what always holds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivace.plan.quantize import quantize_value
from vivace.types.errors import ConfigError


def test_exercise_3() -> None:
    found = quantize_value(0.15, -2.5, 3.2)
    assert found.scale == pytest.approx(3.2 / 127)
    assert found.code == 6
    assert found.restored == pytest.approx(0.1512, abs=5e-5)
    assert found.absolute_error == pytest.approx(0.0012, abs=5e-5)
    assert found.relative_error == pytest.approx(0.008, abs=2e-4)


@given(
    low=st.floats(-100, -0.01), high=st.floats(0.01, 100), share=st.floats(0, 1), bits=st.integers(2, 8),
    symmetric=st.booleans(),
)  # fmt: skip
def test_inside_the_range_the_error_is_half_a_step(
    *, low: float, high: float, share: float, bits: int, symmetric: bool
) -> None:
    found = quantize_value(low + share * (high - low), low, high, bits, symmetric=symmetric)
    slack = 0.0 if symmetric else found.scale / 2  # a whole zero point moves the ends by up to half a step
    assert found.absolute_error <= found.largest_error + slack + 1e-9
    zero = quantize_value(0.0, low, high, bits, symmetric=symmetric)
    assert zero.restored == 0.0
    assert zero.relative_error is None


def test_outside_the_range_it_clips() -> None:
    assert quantize_value(9.0, -1, 1).clipped
    assert quantize_value(9.0, -1, 1).restored == pytest.approx(1)


@pytest.mark.parametrize(("low", "high", "bits"), [(1, 1, 8), (0, 1, 9), (0, 1, 1)])
def test_an_empty_range_or_odd_bits_are_refused(low: float, high: float, bits: int) -> None:
    with pytest.raises(ConfigError):
        quantize_value(0, low, high, bits)
