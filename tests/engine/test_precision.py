"""Dynamic precision: bands and sensors, and that nested weights keep the same text whatever shares a batch."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.models import random_windows, uneven_model
from vivace.compress.pipeline import compress_weights
from vivace.compress.recipe import PRESETS
from vivace.compress.stored import StoredWeights
from vivace.engine import precision
from vivace.engine.precision import battery_used, check_precision, hottest_celsius, parse_precision
from vivace.execute.native import NativeExecutor, available_isas
from vivace.execute.native_program import quantized_in
from vivace.execute.reference import ReferenceExecutor
from vivace.graph.build import build_graph
from vivace.graph.casts import native_policy
from vivace.graph.passes import cast_inputs
from vivace.types.errors import ConfigError
from vivace.types.kv import DEFAULT_KV_FORMAT
from vivace.types.model import ModelSpec
from vivace.types.precision import FULL, LOW, MIXED
from vivace.types.step import ForwardBatch


def test_the_chapter_reads_eight_bits_then_mixed_then_the_most_there_is() -> None:
    policy = parse_precision("chapter")
    assert policy is not None
    positions = np.array([0, 127, 128, 511, 512, 9000], np.int32)
    assert policy.levels(positions, 1).tolist() == [FULL, FULL, MIXED, MIXED, FULL, FULL]


@settings(deadline=None, max_examples=40)
@given(starts=st.lists(st.integers(1, 5000), unique=True, max_size=5), at=st.integers(0, 6000))
def test_a_row_has_the_level_of_the_last_band_that_began(starts: list[int], at: int) -> None:
    bands = [(0, "full"), *((start, ("low", "mixed", "full")[start % 3]) for start in sorted(starts))]
    policy = parse_precision("bands:" + ",".join(f"{start}={name}" for start, name in bands))
    assert policy is not None
    expected = [name for start, name in bands if start <= at][-1]
    assert policy.levels(np.array([at], np.int32), 1)[0] == ("low", "mixed", "full").index(expected)


def test_load_lowers_all_rows_of_a_step() -> None:
    policy = parse_precision("load:4")
    assert policy is not None
    rows = np.zeros(3, np.int32)
    found = [policy.levels(rows, streams)[0] for streams in (1, 4, 5, 8, 9)]
    assert found == [FULL, FULL, MIXED, MIXED, LOW]


def test_battery_and_heat_are_read_from_the_system(tmp_path: Path) -> None:
    assert battery_used(1, tmp_path) == 0.0
    for name, value in {"type": "Battery", "status": "Discharging", "capacity": "18"}.items():
        (tmp_path / "BAT0").mkdir(exist_ok=True)
        (tmp_path / "BAT0" / name).write_text(value + "\n")
    assert battery_used(1, tmp_path) == 82.0
    (tmp_path / "BAT0" / "status").write_text("Charging")
    assert battery_used(1, tmp_path) == 0.0
    (tmp_path / "thermal_zone0").mkdir()
    (tmp_path / "thermal_zone0" / "temp").write_text("71500\n")
    assert hottest_celsius(1, tmp_path) == 71.5


def test_sensors_are_read_once_a_second() -> None:
    times = iter((0, 999_999_999, 1_000_000_000, 1_500_000_000))
    policy = parse_precision("battery:20", clock=lambda: next(times))
    assert policy is not None
    used = iter((90.0, 30.0))
    policy.sensors = (replace(policy.sensors[0], read=lambda _streams: next(used)),)
    assert [policy.levels(np.zeros(1, np.int32), 1)[0] for _ in range(4)] == [LOW, LOW, FULL, FULL]


@pytest.mark.parametrize(
    "text", ["fast", "load", "load:0", "bands:5=full", "bands:0=full,0=low", "bands:0=most", "heat:x"]
)
def test_words_that_are_no_precision_are_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_precision(text)


def test_a_precision_without_nested_weights_is_refused() -> None:
    _, plain = uneven_model()
    check_precision("off", plain)
    with pytest.raises(ConfigError, match="no nested weights"):
        check_precision("chapter", plain)
    check_precision("chapter+load:4", nested_model()[1])


def test_a_sensor_that_the_machine_lacks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_POWER", tmp_path)
    weights = nested_model()[1]
    with pytest.raises(ConfigError, match="needs a battery"):
        check_precision("battery:20", weights)
    (tmp_path / "BAT0").mkdir()
    (tmp_path / "BAT0" / "type").write_text("Battery")
    check_precision("battery:20", weights)


def nested_model() -> tuple[ModelSpec, StoredWeights]:
    spec, weights = uneven_model()
    return spec, compress_weights(spec, weights, PRESETS["nested"], random_windows(spec)).weights


def batch_of(rows: list[tuple[int, int, int]], levels: np.ndarray | None) -> ForwardBatch:
    """Sequences (first token, length, first block) of up to 16 tokens, each in a block of its own."""
    tokens = np.concatenate([np.arange(first, first + length) for first, length, _ in rows]).astype(np.int32)
    return ForwardBatch(
        token_ids=tokens,
        positions=np.concatenate([np.arange(length) for _, length, _ in rows]).astype(np.int32),
        sequence_starts=np.cumsum([0, *(length for _, length, _ in rows)], dtype=np.int32),
        block_tables=np.array([[block] for _, _, block in rows], np.int32),
        logit_rows=np.arange(len(tokens), dtype=np.int32),
        row_levels=levels,
    )


@pytest.mark.parametrize("isa", available_isas())
@pytest.mark.parametrize("activation_bits", [8, 12])
def test_rows_of_all_levels_share_a_batch_and_none_is_changed_by_it(isa: str, activation_bits: int) -> None:
    spec, weights = nested_model()
    executor = NativeExecutor(build_graph(spec), weights, num_blocks=4, isa=isa, activation_bits=activation_bits)
    rows = [(5, 11, 0), (9, 7, 1), (20, 16, 2)]
    levels = np.concatenate([np.full(11, LOW), np.full(7, MIXED), np.full(16, FULL)]).astype(np.int8)
    together = executor.forward(batch_of(rows, levels)).copy()
    start = 0
    for row in rows:
        alone = executor.forward(batch_of([row], levels[start : start + row[1]]))
        np.testing.assert_array_equal(alone, together[start : start + row[1]])
        start += row[1]
    everything = executor.forward(batch_of(rows, None)).copy()
    np.testing.assert_array_equal(everything[18:], together[18:])  # full is what no levels are
    assert np.abs(everything[:11] - together[:11]).max() > 1e-3  # and low is something else


def test_every_level_computes_what_the_reference_does() -> None:
    spec, weights = nested_model()
    graph = build_graph(spec)
    native = NativeExecutor(graph, weights, num_blocks=4)
    rounded = cast_inputs(graph, native_policy(12), quantized_in(weights))  # as the core rounds its inputs
    reference = ReferenceExecutor(rounded, weights, num_blocks=4, kv_format=DEFAULT_KV_FORMAT)
    levels = (np.arange(16) % 3).astype(np.int8)  # levels change within a sequence
    found, expected = (e.forward(batch_of([(5, 16, 0)], levels)).copy() for e in (native, reference))
    np.testing.assert_allclose(found, expected, atol=5e-3 * np.abs(expected).max())
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.9
