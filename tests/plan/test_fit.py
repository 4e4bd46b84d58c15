"""Planning for a memory: exercise 5 is not reachable and is told so; curves behave; sizes add up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivace.plan.fit import GIB, Workload, plan_fit
from vivace.plan.kv import plan_kv
from vivace.plan.method import advise_method
from vivace.plan.model_shapes import SHAPES, ModelShape, shape_for
from vivace.plan.quality_curves import MEASUREMENTS, METHODS, bits_needed, predict_quality
from vivace.types.errors import ConfigError


def test_exercise_5_is_not_reachable_and_the_nearest_are_named() -> None:
    answer = plan_fit(shape_for(70e9), 16 * GIB, 0.95)
    assert answer.plans == ()
    assert 1.8 < answer.bits_left < 2.0
    assert min(answer.bits_needed.values()) > answer.bits_left
    assert answer.largest_quality is not None
    assert answer.largest_quality.total_bytes <= 16 * GIB
    assert answer.largest_quality.quality.recovery < 0.95
    assert answer.smallest_memory.quality.recovery >= 0.95
    assert answer.smallest_memory.total_bytes > 16 * GIB


def test_the_chapter_s_own_parts_are_twice_what_it_allows() -> None:
    parts = {"embedding": 7, "first 20": 8.75, "middle 30": 7, "last 20": 8.75, "head": 3.5, "KV": 2, "activations": 1}
    saved = {"shared embedding": 3.5, "reused layers": 3.5}
    assert sum(parts.values()) - sum(saved.values()) == pytest.approx(31)


def test_plans_fit_keep_the_quality_and_what_runs_here_comes_first() -> None:
    answer = plan_fit(shape_for(8e9), 8 * GIB, 0.95, Workload(context=4096, sequences=2))
    assert answer.plans
    assert answer.plans[0].blocks.runs_here
    for plan in answer.plans:
        assert plan.total_bytes == sum(plan.num_bytes.values()) <= 8 * GIB
        assert plan.quality.recovery >= 0.95
        kv = plan_kv(answer.shape.attention, 4096, 2, plan.kv_format)
        assert plan.num_bytes["KV cache"] == kv.total_bytes
        weights = sum(plan.num_bytes[name] for name in ("embedding", "blocks", "head"))
        assert plan.bits_per_weight == pytest.approx(8 * weights / answer.shape.num_params)
    runs = [plan.blocks.runs_here for plan in answer.plans]
    assert runs == sorted(runs, reverse=True)


def test_wide_ends_are_worth_no_more_than_eight_bits_and_are_not_paid_for_with_keys_and_values() -> None:
    best = plan_fit(shape_for(70e9), 48 * GIB, 0.95, Workload(context=4096)).plans[0]
    assert (best.blocks.name, best.kv_format) == ("Q5_0", "f16")
    assert {best.embedding, best.head} <= {"Q8_0", "Q8_64"}


def test_own_models_are_told_what_was_measured_of_them() -> None:
    for point in MEASUREMENTS:
        if point.billions < 1:
            found = predict_quality(point.billions, point.bits, point.method)
            assert found.recovery == pytest.approx(1 / point.ratio, abs=0.04)
    assert {point.model for point in MEASUREMENTS if point.billions < 1} == {"SmolLM2 135M", "Gemma 3 270M"}


@given(billions=st.floats(0.05, 500), bits=st.floats(1.5, 12), method=st.sampled_from(sorted(METHODS)))
def test_more_bits_and_larger_models_keep_more(billions: float, bits: float, method: str) -> None:
    found = predict_quality(billions, bits, method)
    assert 0 <= found.low <= found.recovery <= found.high <= 1
    assert predict_quality(billions, bits + 1, method).recovery >= found.recovery
    assert predict_quality(2 * billions, bits, method).recovery >= found.recovery - 1e-12


def test_calibration_helps_and_most_measurements_lie_in_the_predicted_range() -> None:
    assert predict_quality(8, 4.5, "calibrated").recovery > predict_quality(8, 4.5, "rounding").recovery
    ranges = [(point, predict_quality(point.billions, point.bits, point.method)) for point in MEASUREMENTS]
    inside = sum(found.low <= 1 / point.ratio <= found.high for point, found in ranges)
    assert inside >= 0.7 * len(ranges)
    assert predict_quality(70, bits_needed(70, 0.97, "rounding"), "rounding").recovery == pytest.approx(0.97, abs=1e-4)


@given(params=st.floats(1e7, 1e12))
def test_a_shape_has_room_for_its_embedding(params: float) -> None:
    shape = shape_for(params)
    assert shape.embedding_params + shape.head_params + shape.block_params == shape.num_params == int(params)
    assert shape.block_params > 0 or params < SHAPES[0].embedding_params


@pytest.mark.parametrize(
    ("billions", "bits", "goal", "words"),
    [
        (0.5, 4, "quality", "usually enough"),
        (3, 4, "quality", "QAT"),
        (3, 4, "speed", "mixed precision"),
        (70, 8, "quality", "PTQ will do"),
        (70, 4, "speed", "advanced PTQ"),
    ],
)
def test_the_decision_tree_is_the_chapter_s(billions: float, bits: int, goal: str, words: str) -> None:
    assert words in advise_method(billions, bits, goal).chapter


def test_advice_follows_the_expected_loss() -> None:
    assert "int8" in advise_method(0.135, 8, "quality").recommended
    assert "mixed precision" in advise_method(0.135, 4, "quality").recommended
    assert "recipe int4" in advise_method(70, 4, "quality").recommended
    assert advise_method(70, 2, "quality").recommended.startswith("QAT")


@pytest.mark.parametrize("values", [(0, 4, "quality"), (1, 9, "quality"), (1, 4, "beauty")])
def test_impossible_questions_are_refused(values: tuple[float, int, str]) -> None:
    with pytest.raises(ConfigError):
        advise_method(*values)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_a_shape_has_as_many_weights_as_it_says(shape: ModelShape) -> None:
    attention = shape.attention
    heads, kv_heads = (count * attention.head_dim for count in (attention.num_heads, attention.num_kv_heads))
    layer = shape.hidden_size * (2 * heads + 2 * kv_heads + 3 * shape.ffn_size)
    assert layer * attention.num_layers == pytest.approx(shape.block_params, rel=1e-3)  # norms and biases are the rest
