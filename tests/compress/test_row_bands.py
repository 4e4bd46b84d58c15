"""Rules for bands of rows, from a recipe to a file, and parts of an embedding in a mix."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from factories.gguf_files import small_spec, write_gguf
from factories.tiny_models import random_weights
from vivace.compress.checkpoint import Checkpoint, Progress
from vivace.compress.layout import plan_layout
from vivace.compress.parts import BAND_ENDS, model_parts
from vivace.compress.pipeline import compress_weights
from vivace.compress.recipe import PRESETS, Recipe, TensorRule
from vivace.compress.recipe_file import find_recipe
from vivace.compress.save import compress_file
from vivace.compress.sensitivity import measure_sensitivity, mixed_recipe
from vivace.compress.stored import store_bands, store_floats
from vivace.execute.score import Tokens
from vivace.files.open import open_model
from vivace.graph.weights import weight_shapes
from vivace.types.errors import ConfigError
from vivace.types.model import ModelSpec
from vivace.types.weights import RowBand, TensorFormat

Q4, Q5, Q6, Q8 = TensorFormat.Q4_0, TensorFormat.Q5_0, TensorFormat.Q6_0, TensorFormat.Q8_0
RECIPE = """
name: banded
scales: mse
importance: {importance}
rounding: {rounding}
calibration: {{samples: 4, tokens: 64}}
tensors:
  - {{match: embed.weight, format: Q8_0, rows: 64}}
  - {{match: embed.weight, format: Q6_0, rows: 192}}
  - {{match: embed.weight, format: Q4_0}}
  - {{match: "layers.*", format: Q4_0}}
"""
BANDS = (RowBand(0, 64, Q8), RowBand(64, 192, Q6), RowBand(192, 320, Q4))


def windows_of(spec: ModelSpec, count: int = 3) -> list[Tokens]:
    random = np.random.default_rng(2)
    return [random.integers(0, spec.vocab_size, 48).astype(np.int32) for _ in range(count)]


def with_ends(*rules: TensorRule) -> Recipe:
    return replace(PRESETS["int4-fast"], rules=(*rules, TensorRule("layers.*", Q4)))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("importance", "rounding"), [("false", "nearest"), ("true", "gptq")])
def test_a_recipe_of_bands_is_stored_as_it_says(tmp_path: Path, tied: bool, importance: str, rounding: str) -> None:
    spec = replace(small_spec(), tied_embeddings=tied)
    write_gguf(tmp_path / "source.gguf", spec)
    (tmp_path / "banded.yaml").write_text(RECIPE.format(importance=importance, rounding=rounding))
    saved = compress_file(tmp_path / "source.gguf", tmp_path / "out.gguf", find_recipe(str(tmp_path / "banded.yaml")))
    plan = next(outcome.plan for outcome in saved.model.outcomes if outcome.plan.name == "embed.weight")
    model = open_model(tmp_path / "out.gguf")
    info = model.weights.info("embed.weight")
    assert info.bands == BANDS
    assert info.num_bytes == plan.num_bytes == 64 * (64 // 32 * 34) + 128 * (64 // 32 * 26) + 128 * (64 // 32 * 18)
    source = open_model(tmp_path / "source.gguf").weights.dequantize("embed.weight")
    errors = [
        float(np.square(model.weights.dequantize("embed.weight")[b.begin : b.end] - source[b.begin : b.end]).mean())
        for b in BANDS
    ]
    assert errors[0] * 4 < errors[1] < errors[2] / 4  # two bits more are a sixteenth of the error


def test_neighbours_that_come_out_alike_are_one_band() -> None:
    spec = small_spec()
    recipe = with_ends(
        TensorRule("embed.weight", Q8, rows=64),
        TensorRule("embed.weight", Q8, rows=128),
        TensorRule("embed.weight", Q4),
    )
    plan = plan_layout(spec, random_weights(spec), recipe)["embed.weight"]
    assert [(band.shape[0], band.format) for band in plan.bands] == [(128, Q8), (spec.vocab_size - 128, Q4)]
    alike = with_ends(TensorRule("embed.weight", Q8, rows=64), TensorRule("embed.weight", Q8))
    assert plan_layout(spec, random_weights(spec), alike)["embed.weight"].bands == ()


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ([TensorRule("embed.weight", Q8, rows=100), TensorRule("embed.weight", Q4)], "multiples of 64"),
        ([TensorRule("embed.weight", Q8, rows=128), TensorRule("embed.weight", Q4, rows=64)], "rising order"),
        ([TensorRule("embed.weight", Q8, rows=64)], "from 64 on"),
        ([TensorRule("embed.weight", None, rows=64), TensorRule("embed.weight", Q4)], "other than KEEP"),
        ([TensorRule("embed.weight", TensorFormat.F16, rows=64), TensorRule("embed.weight", Q4)], "of floats"),
        ([TensorRule("embed.weight", TensorFormat.N8_0, rows=64), TensorRule("embed.weight", Q4)], "two levels"),
        ([TensorRule("layers.0.mlp.up.weight", Q8, rows=64)], "divides the rows of layers.0.mlp.up"),
    ],
)
def test_rules_that_make_no_bands_are_refused(rules: list[TensorRule], says: str) -> None:
    spec = small_spec()
    with pytest.raises(ConfigError, match=says):
        plan_layout(spec, random_weights(spec), with_ends(*rules))


def test_progress_keeps_bands(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((128, 32)).astype(np.float32)
    stored = store_bands([store_floats(values[:64], Q8), store_floats(values[64:], Q4)])
    Checkpoint(tmp_path / "at", "key").save(Progress(1, {"embed.weight": stored}))
    found = Checkpoint(tmp_path / "at", "key").load()
    assert found is not None
    assert found.stored["embed.weight"].bands == stored.bands
    np.testing.assert_array_equal(found.stored["embed.weight"].dequantize(), stored.dequantize())


@pytest.mark.parametrize("vocab", [50, 64, 65, 1000, 49152])
@pytest.mark.parametrize("tied", [True, False])
def test_every_row_of_the_ends_is_of_one_part(vocab: int, tied: bool) -> None:
    spec = replace(small_spec(), vocab_size=vocab, tied_embeddings=tied)
    parts, shapes = model_parts(spec), weight_shapes(spec)
    for name in ("embed.weight",) if tied else ("embed.weight", "lm_head.weight"):
        rows = [part.rows or (0, vocab) for part in parts.values() if part.matrices == (name,)]
        assert [row for begin, end in rows for row in range(begin, end)] == list(range(vocab))
    matrices = sum(int(np.prod(shape)) for shape in shapes.values() if len(shape) == 2)
    assert sum(part.num_weights(shapes) for part in parts.values()) == matrices
    assert all(end % 64 == 0 for end in BAND_ENDS)


def test_a_mix_gives_more_bits_to_the_rows_that_matter() -> None:
    spec = replace(small_spec(), vocab_size=700)
    weights = random_weights(spec)
    few = [window % 64 for window in windows_of(spec)]  # of all tokens, texts read and write the first 64
    weights.arrays["embed.weight"][64:] *= np.float32(0.02)
    parts = measure_sensitivity(spec, weights, few)
    losses = {part.name: part.options[0].loss for part in parts}
    assert losses["embed.rows.0-64"] > 10 * losses["embed.rows.64-512"]
    recipe, allocation = mixed_recipe(spec, parts, 5.0, PRESETS["int4-fast"])
    made = compress_weights(spec, weights, recipe)
    plan = next(outcome.plan for outcome in made.outcomes if outcome.plan.name == "embed.weight")
    bands = made.weights.info("embed.weight").row_bands
    assert plan.num_bytes == made.weights.info("embed.weight").num_bytes
    bits = {band.begin: band.format for band in bands}
    assert bits[0] in (Q6, Q8)
    assert bands[-1].format is Q4
    matrices = [outcome.plan for outcome in made.outcomes if len(outcome.plan.shape) == 2]
    assert sum(plan.num_bytes for plan in matrices) == allocation.num_bytes


def test_rows_that_no_window_reads_get_bits_where_there_are_enough() -> None:
    spec = replace(small_spec(), vocab_size=700, tied_embeddings=False)
    weights = random_weights(spec)
    parts = measure_sensitivity(spec, weights, [window % 64 for window in windows_of(spec)])
    by_name = {part.name: part for part in parts}
    read, unread = by_name["embed.rows.0-64"], by_name["embed.rows.512-700"]
    assert 0 < unread.options[0].loss < 0.1 * read.options[0].loss
    assert [option.loss for option in unread.options] == sorted((o.loss for o in unread.options), reverse=True)
    recipe, _ = mixed_recipe(spec, parts, 8.2, PRESETS["int4-fast"])
    formats = [rule.format for rule in recipe.rules if rule.match == "embed.weight"]
    assert min(formats, key=lambda format: float(str(format)[1])) > TensorFormat.Q4_64
