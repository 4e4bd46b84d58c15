"""What shares a scale: a group, a row, a tile or a whole matrix, from a recipe's words to blocks and logits."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from compress.models import random_windows, uneven_model, write_uneven_gguf
from factories.gguf_files import write_gguf
from factories.greedy import blocks_for, make_batch
from vivace.compress.pipeline import compress_weights
from vivace.compress.quantizers import quantize_matrix
from vivace.compress.recipe_file import find_recipe
from vivace.compress.save import compress_file
from vivace.compress.scales import SCALE_RULES, fit_scales
from vivace.compress.schemes import Floats, QuantScheme
from vivace.execute.native import NativeExecutor
from vivace.execute.reference import ReferenceExecutor
from vivace.files.open import open_model
from vivace.graph.build import build_graph
from vivace.numerics.formats import FORMATS
from vivace.types.errors import ConfigError
from vivace.types.weights import TensorFormat, WeightSource

MATRIX = "layers.0.mlp.down.weight"
SHARED = {
    "group": ("group_size: 32", (1, 32)),
    "row": ("group_size: 0", (1, 0)),
    "tile": ("group_size: 32, group_rows: 16", (16, 32)),
    "matrix": ("group_size: 0, group_rows: 0", (0, 0)),
}
"""Words of a rule, and the rows and columns that they make share a scale; 0: all."""


def random_matrix(rows: int = 12, columns: int = 64, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)


def write_recipe(path: Path, rule: str, rest: str = "") -> str:
    path.write_text(f"tensors: [{{match: 'layers.*', {rule}}}]\ncalibration: {{samples: 2, tokens: 32}}\n{rest}")
    return str(path)


def numbers_of(weights: WeightSource, name: str) -> NDArray[np.float16]:
    """Scales, and minima where there are any, of a matrix's blocks: float16 (rows, blocks, 1 or 2)."""
    info = weights.info(name)
    row = FORMATS[info.format]
    count = 1 + (info.format in (TensorFormat.Q4_1, TensorFormat.Q5_1, TensorFormat.Q8_M))
    blocks = weights.raw(name).reshape(-1, row.block_bytes)[:, : 2 * count]
    return np.ascontiguousarray(blocks).view("<f2").reshape(info.shape[0], -1, count)


def assert_shared(numbers: NDArray[np.float16], rows: int, columns: int) -> None:
    """Blocks of a tile have the same numbers, and those of two tiles do not."""
    height, width = rows or numbers.shape[0], (columns or 32 * numbers.shape[1]) // 32
    firsts = numbers[::height, ::width]
    spread = firsts.repeat(height, axis=0)[: numbers.shape[0]].repeat(width, axis=1)
    np.testing.assert_array_equal(numbers, spread)
    assert len(np.unique(firsts[:, :, 0])) > 0.9 * firsts[:, :, 0].size or firsts[:, :, 0].size == 1


@pytest.mark.parametrize("shared", SHARED)
@pytest.mark.parametrize("format", ["Q8_0", "Q8_M", "Q4_1, zero_point: true", "Q4_0, bits: 2"])
def test_a_recipe_says_what_shares_a_scale_and_the_file_does_so(tmp_path: Path, shared: str, format: str) -> None:
    model = tmp_path / "model.gguf"
    write_gguf(model)
    words, (rows, columns) = SHARED[shared]
    recipe = find_recipe(write_recipe(tmp_path / "r.yaml", f"format: {format}, {words}"))
    compress_file(model, tmp_path / "out.gguf", recipe)
    written = open_model(tmp_path / "out.gguf")
    assert_shared(numbers_of(written.weights, MATRIX), rows, columns)
    batch = make_batch([(0, list(range(5, 45)), 0)], 1, blocks_for(40), all_logits=True)
    graph = build_graph(written.spec)
    expected = ReferenceExecutor(graph, written.weights, num_blocks=4).forward(batch)
    found = NativeExecutor(graph, written.weights, num_blocks=4).forward(batch)
    assert np.abs(found - expected).max() < 1e-2 * np.abs(expected).max()
    written.close()


@pytest.mark.parametrize("rounding", ["gptq", "descent", "learned"])
@pytest.mark.parametrize("shared", ["row", "tile", "matrix"])
def test_every_rounding_works_under_shared_scales_and_keeps_them_shared(
    tmp_path: Path, shared: str, rounding: str
) -> None:
    spec, weights = uneven_model()
    words, (rows, columns) = SHARED[shared]
    errors = {}
    for name in ("nearest", rounding):
        rest = f"rounding: {name}\nimportance: true\nact_order: false\n"
        recipe = find_recipe(write_recipe(tmp_path / "r.yaml", f"format: Q4_0, bits: 3, {words}", rest))
        made = compress_weights(spec, weights, recipe, random_windows(spec, 8)).weights
        if name != "nearest" and (rounding != "descent" or shared != "row"):  # which refits scales of a row
            assert_shared(numbers_of(made, MATRIX), rows, columns)
        errors[name] = made.dequantize(MATRIX)
    assert not np.array_equal(errors["nearest"], errors[rounding])


def test_a_whole_matrix_in_one_tile_has_the_scale_of_a_tensor() -> None:
    matrix = random_matrix()
    for rule in SCALE_RULES:
        for kind in ("symmetric", "full_symmetric", "zero_point", "minimum"):
            one = fit_scales(matrix, QuantScheme(5, kind, "tensor"), rule)  # type: ignore[arg-type]
            tile = fit_scales(matrix, QuantScheme(5, kind, "group", 64, group_rows=0), rule)  # type: ignore[arg-type]
            assert tile.scales.shape == (12, 1)
            np.testing.assert_allclose(tile.scales, np.full((12, 1), one.scales[0, 0]), rtol=1e-5)
            np.testing.assert_allclose(tile.offsets, np.full((12, 1), one.offsets[0, 0]), rtol=1e-4, atol=1e-6)


def test_the_last_tile_may_have_fewer_rows() -> None:
    matrix = random_matrix()
    scales = fit_scales(matrix, QuantScheme(4, "symmetric", "group", 32, group_rows=5), "minmax").scales
    for begin, end in ((0, 5), (5, 10), (10, 12)):
        np.testing.assert_array_equal(scales[begin:end, 0], np.abs(matrix[begin:end, :32]).max() / np.float32(7))


def test_importance_weighs_the_columns_of_a_tile() -> None:
    matrix, importance = random_matrix(), np.ones(64, np.float32)
    importance[:8] = 1000
    scheme = QuantScheme(3, "minimum", "group", 64, group_rows=0)
    found = {}
    for name, weights in (("plain", None), ("weighed", importance)):
        change = quantize_matrix(matrix, scheme, fit_scales(matrix, scheme, "mse", weights)).dequantize() - matrix
        found[name] = float((importance * change**2).sum())
    assert found["weighed"] < found["plain"]


def test_finer_sharing_loses_less() -> None:
    matrix = random_matrix(48, 96) * np.exp(np.random.default_rng(1).standard_normal((48, 3))).repeat(32, axis=1)
    tiles = [(0, 96), (1, 96), (16, 32), (1, 32)]
    errors = []
    for rows, columns in tiles:
        scheme = QuantScheme(4, "symmetric", "group", columns, group_rows=rows)
        quantized = quantize_matrix(matrix, scheme, fit_scales(matrix.astype(np.float32), scheme, "minmax"))
        errors.append(float(((quantized.dequantize() - matrix) ** 2).sum()))
    assert errors[0] > errors[1] > errors[3] and errors[0] > errors[2] > errors[3]


@pytest.mark.parametrize("kind", ["zero_point", "minimum"])
@pytest.mark.parametrize("bits", [5, 6, 8])
def test_codes_about_a_middle_stand_for_the_same_grid_with_smaller_offsets(kind: str, bits: int) -> None:
    matrix = random_matrix() + np.float32(0.7)
    schemes = [QuantScheme(bits, kind, "group", 32, "F16", centred=centred) for centred in (False, True)]  # type: ignore[arg-type]
    for rule in SCALE_RULES:
        plain, centred = (quantize_matrix(matrix, scheme, fit_scales(matrix, scheme, rule)) for scheme in schemes)
        assert centred.codes.min() >= -(1 << (bits - 1)) and centred.codes.max() <= (1 << (bits - 1)) - 1
        assert centred.codes.min() < 0 < centred.codes.max()
        assert np.abs(centred.affine.offsets).mean() < 0.7 * np.abs(plain.affine.offsets).mean()
        errors = [float(((each.dequantize() - matrix) ** 2).sum()) for each in (plain, centred)]
        assert errors[1] < 1.05 * errors[0]
        if kind == "zero_point":
            assert centred.zero_points is not None
            zero = centred.zero_points * centred.affine.scales + centred.affine.offsets
            assert np.abs(zero / centred.affine.scales).max() < 0.07  # of a step: what float16 leaves of the offset


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("format: Q8_0, zero_point: true", "Use Q4_1, Q5_1 or Q8_M"),
        ("format: Q4_0, group_rows: -1", "Groups of -1 rows"),
        ("format: Q8_M, group_size: 48", "Groups of 48 do not divide"),
        ("format: Q4_0, group_rows: all", "group_rows"),
    ],
)
def test_what_cannot_share_a_scale_is_refused_in_words(tmp_path: Path, rule: str, words: str) -> None:
    model = write_uneven_gguf(tmp_path / "model.gguf")
    with pytest.raises(ConfigError) as refused:
        compress_file(model, tmp_path / "out.gguf", find_recipe(write_recipe(tmp_path / "r.yaml", rule)))
    import re

    assert re.search(
        words, f"{refused.value} {refused.value.hint}" if hasattr(refused.value, "hint") else str(refused.value)
    )
    assert not (tmp_path / "out.gguf").exists()
