"""`vivace bench roofline` and `latency`: what they count and what they print. No speed is asserted."""

import json
import sys
from pathlib import Path

import pytest

from factories.gguf_files import small_spec, write_gguf
from vivace.cli.bench_roofline import limits, token_cost
from vivace.cli.main import main
from vivace.execute.native import available_isas, measure_peak, measure_read_bandwidth
from vivace.files.open import open_model
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
    assert "one sequence can write at most" in capsys.readouterr().out
    assert main(["bench", "roofline", "--model", str(model), "--threads", "1", "--repeat", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["mebibytes"] for one in found["bandwidths"]] == [1, 2]


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
