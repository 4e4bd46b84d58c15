"""What parts lose together: losses scaled by it sum to what whole models lose."""

import numpy as np
import pytest

from compress.models import random_windows, uneven_model
from vivace.compress.allocate import Option
from vivace.compress.company import MovedWeights, company_factors
from vivace.compress.divergence import KeptReference
from vivace.compress.pipeline import compress_weights
from vivace.compress.recipe import Recipe, TensorRule
from vivace.compress.sensitivity import PartSensitivity, formats_of, in_company, measure_sensitivity
from vivace.execute.native import NativeExecutor
from vivace.graph.build import build_graph
from vivace.types.step import BLOCK_SIZE


def test_factors_are_what_is_lost_together_over_the_sum_of_what_is_lost_alone() -> None:
    lost = {1.0: 2.6, 0.5: 0.45, 0.25: 0.12}
    assert company_factors(2.0, lost.__getitem__) == pytest.approx((1.3, 0.9, 0.96))
    assert company_factors(0.0, lost.__getitem__) == (1.0, 1.0, 1.0)


def test_losses_are_scaled_by_the_bits_of_their_format() -> None:
    labels = ("Q4_64", "Q4_0", "Q5_0", "Q6_64", "Q8_64", "F16")
    part = PartSensitivity("p", (), tuple(Option(label, 1, 1.0) for label in labels))
    found = in_company(part, (1.3, 0.9, 0.96)).options
    assert [option.loss for option in found] == [1.3, 1.3, 0.9, 0.96, 0.96, 0.96]


def test_moved_weights_begin_at_the_source_and_end_where_they_are_rounded() -> None:
    _, weights = uneven_model()
    name = "layers.0.mlp.up.weight"
    end = np.round(weights.arrays[name])
    for share in (0.0, 0.5, 1.0):
        moved = MovedWeights(weights, lambda _: end, [name], share)
        expected = weights.arrays[name] + np.float32(share) * (end - weights.arrays[name])
        np.testing.assert_allclose(moved.dequantize(name), expected, atol=1e-6)
        assert moved.raw(name).size == moved.info(name).num_bytes
        other = "layers.1.mlp.up.weight"
        np.testing.assert_array_equal(moved.dequantize(other), weights.arrays[other])


def test_lowest_losses_sum_to_what_the_whole_model_loses_in_the_lowest_format() -> None:
    spec, weights = uneven_model()
    windows = random_windows(spec)[:3]
    parts = measure_sensitivity(spec, weights, windows)
    graph, blocks = build_graph(spec), -(-max(map(len, windows)) // BLOCK_SIZE)
    whole = Recipe("lowest", (TensorRule("*", formats_of(spec)[0]),), scales="minmax")
    reference = KeptReference(NativeExecutor(graph, weights, num_blocks=blocks), windows)
    made = compress_weights(spec, weights, whole).weights
    lost = reference.mean_kl(NativeExecutor(graph, made, num_blocks=blocks))
    assert sum(part.options[0].loss for part in parts) == pytest.approx(lost, rel=0.1)
