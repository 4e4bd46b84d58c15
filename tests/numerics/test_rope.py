"""Rotary frequencies equal those of transformers, and have the properties their papers promise."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vivace.numerics.rope import inverse_frequencies, rope_table
from vivace.types.errors import ConfigError
from vivace.types.model import RopeScaling, RopeSpec

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "rope.json").read_text())["cases"]


def spec_of(parameters: dict[str, Any], dim: int = 64) -> RopeSpec:
    settings = dict(parameters)
    kind, base = settings.pop("rope_type"), settings.pop("rope_theta")
    if kind == "default":
        return RopeSpec(base, dim, interleaved=False)
    if "original_max_position_embeddings" in settings:
        settings["original_context_length"] = settings.pop("original_max_position_embeddings")
    return RopeSpec(base, dim, interleaved=False, scaling=RopeScaling(kind, **settings))


@pytest.mark.parametrize("case", GOLDEN)
def test_frequencies_equal_those_of_transformers(case: str) -> None:
    golden = GOLDEN[case]
    frequencies, factor = inverse_frequencies(spec_of(golden["parameters"]))
    np.testing.assert_allclose(frequencies, golden["inverse_frequencies"], rtol=2e-6)
    assert factor == pytest.approx(golden["factor"], rel=1e-7)


def test_frequency_factors_divide() -> None:
    plain, _ = inverse_frequencies(RopeSpec(1e4, 8, interleaved=True))
    divided, _ = inverse_frequencies(RopeSpec(1e4, 8, interleaved=True, frequency_factors=(1.0, 2.0, 4.0, 8.0)))
    np.testing.assert_allclose(plain / divided, [1, 2, 4, 8])


@pytest.mark.parametrize("kind", ["linear", "llama3", "yarn"])
def test_a_factor_of_one_scales_nothing(kind: Any) -> None:
    scaling = RopeScaling(kind, 1.0, original_context_length=4096)
    plain, _ = inverse_frequencies(RopeSpec(1e4, 64, interleaved=False))
    scaled, factor = inverse_frequencies(RopeSpec(1e4, 64, interleaved=False, scaling=scaling))
    np.testing.assert_allclose(scaled, plain, rtol=1e-12)
    assert factor == 1.0


@pytest.mark.parametrize("kind", ["llama3", "yarn"])
def test_fast_lanes_are_kept_and_slow_ones_stretched(kind: Any) -> None:
    scaling = RopeScaling(kind, 8.0, original_context_length=8192)
    plain, _ = inverse_frequencies(RopeSpec(5e5, 128, interleaved=False))
    scaled, _ = inverse_frequencies(RopeSpec(5e5, 128, interleaved=False, scaling=scaling))
    ratio = plain / scaled
    assert ratio[0] == pytest.approx(1.0)
    assert ratio[-1] == pytest.approx(8.0)
    assert np.all(np.diff(ratio) >= -1e-9)


def test_the_table_holds_cosines_and_sines_times_the_attention_factor() -> None:
    scaling = RopeScaling("yarn", 4.0, original_context_length=128, attention_factor=1.5)
    cos, sin = rope_table(RopeSpec(1e4, 16, interleaved=True, scaling=scaling), 300)
    assert cos.shape == sin.shape == (300, 8)
    assert cos.dtype == sin.dtype == np.float32
    np.testing.assert_allclose(cos**2 + sin**2, 2.25, rtol=1e-6)
    np.testing.assert_allclose(cos[0], 1.5)


YARN = RopeScaling("yarn", 4.0, original_context_length=128)
SOUND = RopeSpec(1e4, 16, interleaved=False, scaling=YARN)


@pytest.mark.parametrize(
    ("rope", "named"),
    [
        (replace(SOUND, base=1.0), "base is 1.0"),
        (replace(SOUND, base=math.nan), "base is nan"),
        (replace(SOUND, base=math.inf), "base is inf"),
        (replace(SOUND, dim=15), "dim is 15"),
        (replace(SOUND, frequency_factors=(1.0,) * 7 + (0.0,)), "factor is 0.0"),
        (replace(SOUND, scaling=replace(YARN, factor=0.0)), "scaling factor is 0.0"),
        (replace(SOUND, scaling=replace(YARN, original_context_length=0)), "context length is 0"),
        (replace(SOUND, scaling=replace(YARN, kind="llama3", high_freq_factor=1.0)), "low_freq_factor is 1.0"),
        (replace(SOUND, scaling=replace(YARN, beta_slow=0.0)), "beta_slow is 0.0"),
    ],
)
def test_numbers_out_of_range_are_named(rope: RopeSpec, named: str) -> None:
    inverse_frequencies(SOUND)
    with pytest.raises(ConfigError, match=named):
        inverse_frequencies(rope)
