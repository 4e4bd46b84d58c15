"""Compressed-tensors folders: written, read back to the same blocks, and read by the package that has the layout."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from factories.hf_folders import hf_spec, write_hf_folder
from factories.tiny_models import random_weights
from vivace.cli.main import main
from vivace.files.open import LoadedModel, open_model
from vivace.types.input_scheme import InputScheme
from vivace.types.run_settings import RunSettings
from vivace.types.weights import TensorFormat

GROUPS_OF_64 = "tensors: [{match: 'layers.*', format: Q4_0, group_size: 64}]\nkv: {format: int8}\n"
LAYERS = "tensors: [{match: 'layers.*', format: Q8_0}]\n"
ROWS = [
    ("int8", "int-quantized", 8),
    ("w8a8", "int-quantized", 8),
    ("int4-fast", "pack-quantized", 4),
    ("Q4_1", "pack-quantized", 4),
    ("Q8_M", "int-quantized", 8),
]
ASYMMETRIC = {"Q4_1": 4, "Q8_M": 8}
ZERO_POINTS = "tensors: [{match: 'layers.*', format: %s, zero_point: true}]\nscales: %s\n"
needs_package = pytest.mark.skipif(
    not all(importlib.util.find_spec(package) for package in ("compressed_tensors", "torch")),
    reason="compressed-tensors or torch is not installed (tools/install_group.py compat)",
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    write_hf_folder(tmp_path / "model", hf_spec(num_layers=2, ffn_size=128))
    return tmp_path / "model"


def compress(model: Path, recipe: str, name: str) -> Path:
    if recipe in ASYMMETRIC:
        (model.parent / "zero.yaml").write_text(ZERO_POINTS % (recipe, "mse"))
        recipe = str(model.parent / "zero.yaml")
    assert main(["compress", str(model), str(model.parent / name), "--recipe", recipe, "--json"]) == 0
    return model.parent / name


def matrices(model: LoadedModel) -> list[str]:
    return [n for n in model.weights.names() if n.startswith("layers.") and len(model.weights.info(n).shape) == 2]


@pytest.mark.parametrize(("recipe", "layout", "bits"), ROWS)
def test_a_folder_holds_the_blocks_that_a_file_would(model: Path, recipe: str, layout: str, bits: int) -> None:
    folder, file = open_model(compress(model, recipe, "out")), open_model(compress(model, recipe, "out.gguf"))
    settings = json.loads((model.parent / "out" / "config.json").read_text())["quantization_config"]
    weights = settings["config_groups"]["group_0"]["weights"]
    assert (settings["format"], weights["num_bits"], weights["group_size"]) == (layout, bits, 32)
    assert folder.run_settings == file.run_settings
    for name in matrices(folder):
        pair = [opened.weights.dequantize(name) for opened in (folder, file)]
        if name.endswith(("attn.q.weight", "attn.k.weight")):  # whose rows GGUF has in another order
            pair = [np.array(sorted(map(tuple, rows))) for rows in pair]
        np.testing.assert_array_equal(pair[0], pair[1])
    assert folder.weights.info("embed.weight").format == TensorFormat.F16
    assert weights["symmetric"] == (recipe not in ASYMMETRIC)
    (model.parent / "zero.yaml").unlink(missing_ok=True)
    assert sorted(path.name for path in model.parent.iterdir()) == ["model", "out", "out.gguf"]
    folder.close()
    file.close()


@pytest.mark.parametrize("recipe", ["int8", "w8a8", "int4", "int4-gptq"])
def test_norms_of_a_family_that_stores_them_less_one_come_back_to_the_bit(tmp_path: Path, recipe: str) -> None:
    spec = hf_spec("gemma3", num_layers=2, ffn_size=128)
    weights = random_weights(spec, 3)
    for name in weights.names():
        if name.endswith("norm.weight"):
            weights.arrays[name][:] *= np.float32(0.3)  # small ones are those that lose bits
    write_hf_folder(tmp_path / "model", spec, weights=weights)
    asked = ["--samples", "2", "--tokens", "32", "--device", "cpu"]
    out = str(tmp_path / "out")
    assert main(["compress", str(tmp_path / "model"), out, "--recipe", recipe, *asked]) == 0
    written, source = open_model(tmp_path / "out"), open_model(tmp_path / "model")
    assert written.weights.info("final_norm.weight").format == TensorFormat.F32
    np.testing.assert_array_equal(
        written.weights.dequantize("final_norm.weight"), source.weights.dequantize("final_norm.weight")
    )
    written.close()
    source.close()


@pytest.mark.parametrize(
    ("rule", "strategy"),
    [
        ("format: Q8_0, group_size: 0", "channel"),
        ("format: Q8_0, group_size: 0, group_rows: 0", "channel"),
        ("format: Q8_M, group_size: 0, zero_point: true", "channel"),
        ("format: Q4_1, group_size: 0, bits: 3, zero_point: true", "channel"),
        ("format: Q4_0, group_size: 32, group_rows: 16", "group"),
    ],
)
def test_one_scale_for_a_row_a_matrix_or_a_tile_is_written_and_read(model: Path, rule: str, strategy: str) -> None:
    (model.parent / "r.yaml").write_text(f"tensors: [{{match: 'layers.*', {rule}}}]\n")
    out = compress(model, str(model.parent / "r.yaml"), "out")
    weights = json.loads((out / "config.json").read_text())["quantization_config"]["config_groups"]["group_0"][
        "weights"
    ]
    assert weights["strategy"] == strategy
    file, folder = open_model(compress(model, str(model.parent / "r.yaml"), "out.gguf")), open_model(out)
    found = [opened.weights.dequantize("layers.1.mlp.down.weight") for opened in (folder, file)]
    np.testing.assert_array_equal(*found)
    file.close()
    folder.close()


def test_groups_of_64_and_the_kv_format_are_written_and_read(model: Path) -> None:
    (model.parent / "r.yaml").write_text(GROUPS_OF_64)
    out = compress(model, str(model.parent / "r.yaml"), "out")
    settings = json.loads((out / "config.json").read_text())["quantization_config"]
    assert settings["config_groups"]["group_0"]["weights"]["group_size"] == 64
    written = open_model(out)
    assert written.run_settings == RunSettings(None, "int8")
    written.close()


@pytest.mark.parametrize(
    ("activations", "asked"),
    [
        ("{granularity: token}", RunSettings(8, None, InputScheme("token"))),
        (
            "{granularity: token, symmetric: false, bits: 6}",
            RunSettings(6, None, InputScheme("token", symmetric=False)),
        ),
        ("{bits: 7}", RunSettings(7)),
    ],
)
def test_dynamic_activations_of_a_recipe_are_written(model: Path, activations: str, asked: RunSettings) -> None:
    (model.parent / "r.yaml").write_text(LAYERS + f"activations: {activations}\n")
    written = open_model(compress(model, str(model.parent / "r.yaml"), "out"))
    assert written.run_settings == asked
    written.close()


@pytest.mark.parametrize("activations", ["{mode: static, granularity: tensor}", "{clip: 0.9}"])
def test_ranges_and_clips_are_refused_before_the_run(
    model: Path, capsys: pytest.CaptureFixture[str], activations: str
) -> None:
    (model.parent / "r.yaml").write_text(LAYERS + f"activations: {activations}\n")
    assert main(["compress", str(model), str(model.parent / "out"), "--recipe", str(model.parent / "r.yaml")]) == 2
    assert "no place for activations" in capsys.readouterr().err


@pytest.mark.parametrize(("recipe", "words"), [("chapter", "one format"), ("int5", "one format")])
def test_what_a_folder_cannot_hold_is_refused_before_the_run(
    model: Path, capsys: pytest.CaptureFixture[str], recipe: str, words: str
) -> None:
    assert main(["compress", str(model), str(model.parent / "out"), "--recipe", recipe]) == 2
    assert words in capsys.readouterr().err
    assert sorted(path.name for path in model.parent.iterdir()) == ["model"]


@pytest.mark.parametrize("format", ASYMMETRIC)
@pytest.mark.parametrize("rounding", ["nearest", "gptq", "descent"])
def test_every_rounding_keeps_zero_a_code_of_its_own(model: Path, rounding: str, format: str) -> None:
    zero = model.parent / "zero.yaml"
    zero.write_text(
        ZERO_POINTS % (format, "minmax") + f"rounding: {rounding}\ncalibration: {{samples: 2, tokens: 32}}\n"
    )
    written = open_model(compress(model, str(zero), "out"))
    for name in matrices(written):
        blocks = written.weights.raw(name).reshape(-1, 4 + 4 * ASYMMETRIC[format])
        scales, minima = (np.ascontiguousarray(blocks[:, i : i + 2]).view("<f2").astype(np.float32) for i in (0, 2))
        steps = -minima / scales
        assert np.abs(steps - np.rint(steps)).max() < 2.0 ** (ASYMMETRIC[format] - 11)
        assert len(np.unique(np.rint(steps))) > 2
    written.close()


@needs_package
@pytest.mark.parametrize(("recipe", "layout", "bits"), ROWS)
def test_the_package_reads_the_same_weights(model: Path, recipe: str, layout: str, bits: int) -> None:
    import torch
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationConfig
    from safetensors.torch import load_file

    out = compress(model, recipe, "out")
    settings = json.loads((out / "config.json").read_text())["quantization_config"]
    scheme = QuantizationConfig.model_validate(settings).config_groups["group_0"]
    compressor, stored = BaseCompressor.load_from_registry(layout), load_file(out / "model.safetensors")
    ours = open_model(out)
    assert scheme.weights.num_bits == bits
    for name in matrices(ours):
        from vivace.files.families import FAMILIES
        from vivace.files.hf_names import stored_name

        theirs = stored_name(name, FAMILIES["llama"]).removesuffix("weight")
        parts = {key.removeprefix(theirs): value for key, value in stored.items() if key.startswith(theirs)}
        parts["weight_scale"] = parts["weight_scale"].float()  # the package multiplies in the type of the scales
        found = compressor.decompress(parts, scheme)["weight"].to(torch.float32).numpy()
        # It multiplies a scale by a whole difference; blocks hold the zero point times the scale in float16.
        most = 2.0 ** ASYMMETRIC[recipe] * float(parts["weight_scale"].max()) if recipe in ASYMMETRIC else 0.0
        np.testing.assert_allclose(found, ours.weights.dequantize(name), rtol=0, atol=2**-11 * most)
    ours.close()
