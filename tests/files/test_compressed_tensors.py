"""Folders in the compressed-tensors layouts: read to the very codes, run, and refused in words when they are others."""

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from factories.hf_folders import hf_name, hf_spec, write_hf_folder
from factories.tiny_models import ArrayWeights
from vivace.files.open import open_model
from vivace.types.errors import ModelFileError, UnsupportedModelError
from vivace.types.input_scheme import InputScheme
from vivace.types.run_settings import RunSettings
from vivace.types.weights import TensorFormat

GROUP = 32
Tensors = dict[str, NDArray[np.generic]]
DTYPES = {"float32": "F32", "float16": "F16", "int8": "I8", "int32": "I32", "int64": "I64"}


def pack(codes: NDArray[np.int64]) -> NDArray[np.int32]:
    """Codes 0 .. 15, (n, m) -> int32 (n, m / 8), the first code lowest."""
    pieces = codes.astype(np.uint32).reshape(codes.shape[0], -1, 8)
    words: NDArray[np.uint32] = (pieces << (4 * np.arange(8, dtype=np.uint32))).sum(axis=2, dtype=np.uint32)
    return words.view(np.int32)


def write_tensors(path: Path, tensors: Mapping[str, NDArray[np.generic]]) -> None:
    header, position = {}, 0
    for name, array in tensors.items():
        end = position + array.nbytes
        header[name] = {"dtype": DTYPES[array.dtype.name], "shape": array.shape, "data_offsets": [position, end]}
        position = end
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(array.tobytes() for array in tensors.values()))


def quantised_folder(folder: Path, layout: str, bits: int, symmetric: bool) -> tuple[ArrayWeights, Tensors]:
    """A tiny model's folder with all linears quantised; what must be read back, and the tensors of the file."""
    weights = write_hf_folder(folder, hf_spec(), config={"quantization_config": config(layout, bits, symmetric)})
    random, tensors, expected = np.random.default_rng(0), Tensors(), {}
    for name, values in weights.arrays.items():
        stored = hf_name(name, "llama")
        if values.ndim != 2 or not name.startswith("layers."):
            tensors[stored], expected[name] = values.astype(np.float32), values
            continue
        rows, columns = values.shape
        groups = columns // GROUP if layout == "pack-quantized" else 1
        scales = random.uniform(0.001, 0.01, (rows, groups)).astype(np.float16)
        spread = np.repeat(scales, columns // groups, axis=1).astype(np.float32)
        tensors[f"{stored}_scale"] = scales
        if layout == "int-quantized":
            codes = random.integers(-127, 128, (rows, columns)).astype(np.int8)
            tensors[stored], expected[name] = codes, codes * spread
            continue
        nibbles = random.integers(0, 16, (rows, columns))
        zeros = random.integers(0, 16, (rows, groups)) if not symmetric else np.full((rows, groups), 8)
        tensors[f"{stored}_packed"] = pack(nibbles)
        tensors[f"{stored}_shape"] = np.array(values.shape, np.int64)
        if not symmetric:
            tensors[f"{stored}_zero_point"] = np.ascontiguousarray(pack(np.ascontiguousarray(zeros.T)).T)
        expected[name] = ((nibbles - np.repeat(zeros, columns // groups, axis=1)) * spread).astype(np.float32)
    write_tensors(folder / "model.safetensors", tensors)
    return ArrayWeights(expected), tensors


def config(layout: str, bits: int, symmetric: bool) -> dict[str, object]:
    weights = {"num_bits": bits, "symmetric": symmetric, "type": "int", "strategy": "group", "group_size": GROUP}
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    return {"quant_method": "compressed-tensors", "format": layout, "config_groups": groups, "ignore": ["lm_head"]}


@pytest.mark.parametrize(
    ("layout", "bits", "symmetric", "format"),
    [
        ("pack-quantized", 4, True, TensorFormat.Q4_0),
        ("pack-quantized", 4, False, TensorFormat.Q4_1),
        ("int-quantized", 8, True, TensorFormat.Q8_0),
    ],
)
def test_codes_are_read_as_blocks_that_a_kernel_runs(
    tmp_path: Path, layout: str, bits: int, symmetric: bool, format: TensorFormat
) -> None:
    expected, _ = quantised_folder(tmp_path, layout, bits, symmetric)
    model = open_model(tmp_path)
    assert sorted(model.weights.names()) == sorted(expected.names())
    for name, values in expected.arrays.items():
        found = model.weights.dequantize(name)
        if name.startswith("layers.") and values.ndim == 2:
            assert model.weights.info(name).format == format
            assert model.weights.raw(name).size == model.weights.info(name).num_bytes
        tolerance = 0.0 if symmetric else 2e-4  # minima are rounded to float16
        np.testing.assert_allclose(found, values, rtol=0, atol=tolerance)
        model.weights.release(name)
    model.close()


@pytest.mark.skipif(
    not all(importlib.util.find_spec(package) for package in ("compressed_tensors", "torch")),
    reason="compressed-tensors or torch is not installed",
)
def test_the_package_that_defines_the_layout_unpacks_the_same_codes() -> None:
    import torch
    from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32

    codes = np.random.default_rng(1).integers(-8, 8, (16, 64))
    theirs = pack_to_int32(torch.tensor(codes, dtype=torch.int8), 4)
    np.testing.assert_array_equal(theirs.numpy(), pack(codes + 8))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "marlin-24"}, "marlin-24"),
        ({"config_groups": {}}, "0 kinds of quantisation"),
        (config("pack-quantized", 3, True), "codes of 3 bits"),
        (config("int-quantized", 8, False), "codes of 8 bits"),
    ],
)
def test_other_layouts_are_refused_by_name(tmp_path: Path, change: Mapping[str, object], message: str) -> None:
    write_hf_folder(tmp_path, config={"quantization_config": {**config("pack-quantized", 4, True), **change}})
    with pytest.raises(UnsupportedModelError, match=message):
        open_model(tmp_path)


def test_parts_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    _, tensors = quantised_folder(tmp_path, "pack-quantized", 4, False)
    name = next(name.removesuffix("_packed") for name in tensors if name.endswith("_packed"))
    scale, zero = tensors[f"{name}_scale"], tensors[f"{name}_zero_point"]
    wrong: list[tuple[type[Exception], str, Tensors]] = [
        (ModelFileError, "lacks scales", {f"{name}_scale": scale[:-1]}),
        (ModelFileError, "lacks zero points", {f"{name}_zero_point": zero[:-1]}),
        (UnsupportedModelError, "multiple of 32", {f"{name}_scale": np.repeat(scale, 2, axis=1)}),
        (UnsupportedModelError, "g_idx", {f"{name}_g_idx": np.arange(4, dtype=np.int32)}),
        (ModelFileError, "have type I64", {f"{name}_packed": tensors[f"{name}_packed"].astype(np.int64)}),
    ]
    for error, message, change in wrong:
        write_tensors(tmp_path / "model.safetensors", {**tensors, **change})
        with pytest.raises(error, match=message):
            model = open_model(tmp_path)
            for tensor in model.weights.names():
                model.weights.raw(tensor)


@pytest.mark.parametrize(
    ("inputs", "section", "asked"),
    [
        (None, None, RunSettings()),
        (
            {"num_bits": 8, "type": "int", "dynamic": True, "strategy": "token"},
            None,
            RunSettings(8, None, InputScheme("token")),
        ),
        (
            {"num_bits": 6, "type": "int", "dynamic": True, "strategy": "token", "symmetric": False},
            None,
            RunSettings(6, None, InputScheme("token", symmetric=False)),
        ),
        ({"num_bits": 8, "type": "int", "dynamic": False, "strategy": "tensor"}, None, RunSettings(8)),
        ({"num_bits": 8, "type": "int", "dynamic": True, "strategy": "group", "group_size": 32}, None, RunSettings(8)),
        ({"num_bits": 8, "type": "float"}, {"kv_format": "int8"}, RunSettings(None, "int8")),
    ],
)
def test_activations_and_kv_of_a_folder_are_run_as_it_asks(
    tmp_path: Path, inputs: object, section: object, asked: RunSettings
) -> None:
    quantised_folder(tmp_path, "int-quantized", 8, True)
    path = tmp_path / "config.json"
    whole = json.loads(path.read_text())
    whole["quantization_config"]["config_groups"]["group_0"]["input_activations"] = inputs
    path.write_text(json.dumps({**whole, "vivace": section}))
    model = open_model(tmp_path)
    assert model.run_settings == asked
    model.close()
