"""`vivace bench roofline` and `latency`: what they count and what they print. No speed is asserted."""

import json
import sys
from pathlib import Path

import pytest

from factories.gguf_files import small_spec, write_gguf
from vivace.cli.bench_roofline import limits, token_cost
from vivace.cli.main import main
from vivace.cli.roofline_ops import Rates, StepShape, op_floors
from vivace.execute.native import available_isas, measure_peak, measure_read_bandwidth
from vivace.execute.native_program import LinearSettings, lower_fused
from vivace.files.open import open_model
from vivace.graph.build import build_graph
from vivace.types.weights import TensorFormat


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "small.gguf"
    write_gguf(path, small_spec(), format=TensorFormat.Q8_0)
    return path


def test_a_token_costs_each_weight_of_a_linear_once(model: Path) -> None:
    loaded = open_model(model)
    try:
        cost = token_cost(loaded)
    finally:
        loaded.close()
    a_layer = 64 * 64 + 2 * 32 * 64 + 64 * 64 + 3 * 64 * 96  # q, k and v, o, gate and up and down
    assert cost.operations == {"int8": 2 * 3 * a_layer, "bf16": 0, "f32": 0}
    assert cost.head_operations == {"int8": 2 * 320 * 64, "bf16": 0, "f32": 0}
    assert cost.bytes_per_step == (3 * a_layer + 320 * 64) // 32 * 34


def test_the_limits_follow_from_bytes_and_operations(model: Path) -> None:
    loaded = open_model(model)
    cost = token_cost(loaded)
    loaded.close()
    peaks = {"int8": cost.operations["int8"] * 50.0}
    decode, prompt = limits(cost, bytes_per_s=cost.bytes_per_step * 10.0, peaks=peaks)
    assert (decode, prompt) == (pytest.approx(10.0), pytest.approx(50.0))
    decode, _ = limits(cost, bytes_per_s=1e30, peaks=peaks)
    assert decode == pytest.approx(50.0)  # arithmetic binds where memory does not


def test_every_table_but_the_scalar_one_has_a_peak() -> None:
    for isa in available_isas():
        assert (measure_peak(isa, "int8", 1, 1) > 0) == (isa != "scalar")
    assert measure_peak("no such table", "int8", 1, 1) == 0
    assert measure_peak(available_isas()[0], "no such kind", 1, 1) == 0


def test_memory_of_any_size_can_be_read_by_any_number_of_threads() -> None:
    assert measure_read_bandwidth(1, 3, 1) > 0
    assert measure_read_bandwidth((1 << 20) + 77, 2, 1) > 0
    with pytest.raises(ValueError, match="at least 1"):
        measure_read_bandwidth(0, 1, 1)


def test_roofline_prints_limits(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("vivace.cli.bench_roofline.BUFFER_MIB", (1, 2))
    assert main(["bench", "roofline", "--model", str(model), "--threads", "1", "--repeat", "1"]) == 0
    printed = capsys.readouterr().out
    assert "one sequence can write at most" in printed
    assert printed.count("linear gate+up") == 3  # one stream, sixteen, a prompt
    assert main(["bench", "roofline", "--model", str(model), "--threads", "1", "--repeat", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["mebibytes"] for one in found["bandwidths"]] == [1, 2]
    assert {one["op"] for one in found["gains"]} >= {"norm", "attention", "linear q+k+v", "logits"}
    assert all(one["floor_s"] > 0 and one["reached_s"] > 0 for one in found["gains"] if one["op"].startswith("linear"))


def test_the_floor_of_an_op_is_the_longer_of_reading_and_computing(model: Path) -> None:
    loaded = open_model(model)
    core = lower_fused(build_graph(loaded.spec), loaded.weights, LinearSettings(12))
    weights = 3 * (64 * 96 * 2) // 32 * 34  # gate and up of three layers, in bytes
    by_memory = dict(op_floors(core, loaded, StepShape(1, 1, 9), Rates(1e3, 1e30, {"int8": 1e30})))
    assert by_memory["linear gate+up"] == pytest.approx(weights / 1e3)
    assert by_memory["attention"] == pytest.approx(3 * 10 * 2 * 32 * 2 / 1e3)  # ten positions of keys and values
    by_peak = dict(op_floors(core, loaded, StepShape(2, 5, 0), Rates(1e30, 1e30, {"int8": 1e6, "f32": 1e3})))
    assert by_peak["linear gate+up"] == pytest.approx(3 * 2 * 10 * 64 * 96 * 2 / 1e6)
    assert by_peak["attention"] == pytest.approx(3 * 4 * 30 * 64 / 1e3)  # 30 pairs, 64 columns of all heads
    assert by_peak["logits"] == pytest.approx(2 * 2 * 320 * 64 / 1e6)  # logits of two rows
    loaded.close()


def test_latency_has_a_point_for_each_batch_size(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "latency.json"
    sizes = ("--streams", "1,3", "--prompt", "5", "--decode", "4", "--repeat", "2", "--threads", "1")
    assert main(["bench", "latency", "--model", str(model), *sizes, "--json", str(saved)]) == 0
    points = json.loads(saved.read_text(encoding="utf-8"))["points"]
    assert [point["streams"] for point in points] == [1, 3]
    assert all(point["tokens_per_s"] > 0 and point["slow_token_ms"] >= point["token_ms"] for point in points)
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_latency_draws_a_png(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plot = tmp_path / "latency.png"
    sizes = ("--streams", "1,2", "--prompt", "5", "--decode", "3", "--repeat", "1", "--threads", "1")
    assert main(["bench", "latency", "--model", str(model), *sizes, "--plot", str(plot)]) == 0
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("latency", "--streams", "one"), "'one'"),
        (("latency", "--streams", "0"), "'0'"),
        (("latency", "--decode", "0"), "--decode"),
        (("latency", "--prompt", "900"), "--prompt"),
        (("roofline", "--repeat", "0"), "--repeat"),
        (("roofline", "--isa", "none"), "'none'"),
    ],
)
def test_what_cannot_work_is_one_line(
    arguments: tuple[str, ...],
    hint: str,
    model: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VIVACE_ISA", "")
    kind, *options = arguments
    assert main(["bench", kind, "--model", str(model), *options]) == 2
    error = capsys.readouterr().err
    assert hint in error
    assert error.count("\n") == 1


def test_a_plot_without_matplotlib_is_one_line(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    for kind in ("latency", "compare"):
        assert main(["bench", kind, "--model", str(model), "--plot", str(tmp_path / "x.png")]) == 2
        assert "pip install 'vivace[bench]'" in capsys.readouterr().err
