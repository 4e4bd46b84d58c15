"""Random weights of known shapes: files that engines open, with values in range, the same every time."""

from pathlib import Path

import numpy as np
import pytest
from tests.factories.gguf_files import small_spec, write_gguf

from vivace.cli.compare import shapes
from vivace.cli.compare.sanity import GreedyAnswer
from vivace.cli.main import main
from vivace.execute.native import NativeExecutor
from vivace.files.open import open_model
from vivace.graph.build import build_graph
from vivace.numerics.formats import dequantize
from vivace.types.step import ForwardBatch
from vivace.types.weights import TensorFormat

SMALL = shapes.Shape("qwen2", 256, 2, 4, 2, 64, 320, 50_000, 1e6)


@pytest.mark.parametrize("format", shapes.FORMATS)
def test_random_blocks_have_the_deviation_of_real_weights(format: TensorFormat) -> None:
    raw = shapes.random_blocks("blk.0.ffn_up.weight", (64, 1024), format)
    values = dequantize(format, raw, (64, 1024))
    assert abs(values.mean()) < 0.003
    assert 0.01 < values.std() < 0.04
    assert np.array_equal(raw, shapes.random_blocks("blk.0.ffn_up.weight", (64, 1024), format))


@pytest.mark.parametrize("format", shapes.FORMATS)
def test_a_shape_is_a_model_that_runs(format: TensorFormat, tmp_path: Path, smollm2_path: Path) -> None:
    path = tmp_path / "shape.gguf"
    shapes.write_shape(path, SMALL, format, smollm2_path)
    model = open_model(path)
    assert (model.spec.vocab_size, model.spec.num_layers, model.spec.attention.qkv_bias) == (50_000, 2, True)
    expected = {TensorFormat.Q4_K: TensorFormat.Q5_0}.get(format, format)  # 320 columns are no whole super-blocks
    assert model.weights.info("layers.1.mlp.down.weight").format is expected
    assert model.weights.info("layers.1.mlp.up.weight").format is format
    ones = np.array([1], dtype=np.int32)
    batch = ForwardBatch(ones, ones - 1, np.array([0, 1], np.int32), np.zeros((1, 1), np.int32), ones - 1)
    logits = NativeExecutor(build_graph(model.spec), model.weights, num_blocks=1, max_rows=4).forward(batch)
    assert np.isfinite(logits).all()
    assert 0.01 < logits.std() < 100


def test_unknown_shapes_are_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "compare", "--model", "shape:gpt-9:Q4_0", "--rows", "vivace"]) != 0
    assert "llama-3.2-1b" in capsys.readouterr().err


def test_answers_agree_as_far_as_their_first_tokens_are_the_same() -> None:
    ours = GreedyAnswer("", None, (5, 6, 7, 8))
    assert GreedyAnswer("", None, (5, 6, 9, 8)).num_agreeing(ours) == 2
    assert ours.num_agreeing(ours) == 4
    assert GreedyAnswer("text", None).num_agreeing(ours) is None


def test_a_model_file_of_another_kind_is_no_shape(tmp_path: Path) -> None:
    write_gguf(tmp_path / "model.gguf", small_spec())
    assert not shapes.is_shape(str(tmp_path / "model.gguf"))
