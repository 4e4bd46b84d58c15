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
BLOCK = (48, 32)
"""Rows and columns of a tile."""
Tensors = dict[str, NDArray[np.generic]]
DTYPES = {"float32": "F32", "float16": "F16", "int8": "I8", "int32": "I32", "int64": "I64"}


def pack(codes: NDArray[np.integer], bits: int = 4) -> NDArray[np.int32]:
    """Codes 0 .. 2^bits - 1, (n, m) -> int32 (n, m * bits / 32), the first code lowest."""
    per = 32 // bits
    padded = np.pad(codes, ((0, 0), (0, -codes.shape[1] % per)))
    pieces = padded.astype(np.uint32).reshape(codes.shape[0], -1, per)
    words: NDArray[np.uint32] = (pieces << (bits * np.arange(per, dtype=np.uint32))).sum(axis=2, dtype=np.uint32)
    return words.view(np.int32)


def write_tensors(path: Path, tensors: Mapping[str, NDArray[np.generic]]) -> None:
    header, position = {}, 0
    for name, array in tensors.items():
        end = position + array.nbytes
        header[name] = {"dtype": DTYPES[array.dtype.name], "shape": array.shape, "data_offsets": [position, end]}
        position = end
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(array.tobytes() for array in tensors.values()))


def tile_of(strategy: str, shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns that share a scale."""
    return {"group": (1, GROUP), "channel": (1, shape[1]), "tensor": shape, "block": BLOCK}[strategy]


def quantised_folder(
    folder: Path, layout: str, bits: int, symmetric: bool, strategy: str = "group"
) -> tuple[ArrayWeights, Tensors]:
    """A tiny model's folder with all linears quantised; what must be read back, and the tensors of the file."""
    section = {"quantization_config": config(layout, bits, symmetric, strategy)}
    weights = write_hf_folder(folder, hf_spec(), config=section)
    random, tensors, expected = np.random.default_rng(0), Tensors(), {}
    half = 1 << (bits - 1)
    for name, values in weights.arrays.items():
        stored = hf_name(name, "llama")
        if values.ndim != 2 or not name.startswith("layers."):
            tensors[stored], expected[name] = values.astype(np.float32), values
            continue
        (rows, columns), (height, width) = values.shape, tile_of(strategy, values.shape)
        grid = (-(-rows // height), -(-columns // width))
        scales = random.uniform(0.001, 0.01, grid).astype(np.float16)
        codes = random.integers(-half, half, values.shape).astype(np.int8)
        zeros = random.integers(-half, half, grid).astype(np.int8) * np.int8(not symmetric)
        spread = [np.kron(each, np.ones((height, width)))[:rows, :columns] for each in (scales, zeros)]
        expected[name] = ((codes - spread[1]) * spread[0]).astype(np.float32)
        tensors[f"{stored}_scale"] = scales.reshape(-1) if strategy == "tensor" else scales
        if not symmetric:
            packed = layout == "pack-quantized" and strategy in ("group", "channel")
            raised = np.ascontiguousarray(zeros.T).astype(np.int64) + half
            tensors[f"{stored}_zero_point"] = np.ascontiguousarray(pack(raised, bits).T) if packed else zeros
        if layout == "int-quantized":
            tensors[stored] = codes
            continue
        tensors[f"{stored}_packed"] = pack(codes.astype(np.int64) + half, bits)
        tensors[f"{stored}_shape"] = np.array(values.shape, np.int64)
    write_tensors(folder / "model.safetensors", tensors)
    return ArrayWeights(expected), tensors


def config(layout: str, bits: int, symmetric: bool, strategy: str = "group") -> dict[str, object]:
    weights = {"num_bits": bits, "symmetric": symmetric, "type": "int", "strategy": strategy}
    weights |= {"group": {"group_size": GROUP}, "block": {"block_structure": list(BLOCK)}}.get(strategy, {})
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    return {"quant_method": "compressed-tensors", "format": layout, "config_groups": groups, "ignore": ["lm_head"]}


@pytest.mark.parametrize("strategy", ["group", "channel", "tensor", "block"])
@pytest.mark.parametrize(
    ("kind", "format"),
    [
        (("pack-quantized", 4, True), TensorFormat.Q4_0),
        (("pack-quantized", 4, False), TensorFormat.Q4_1),
        (("pack-quantized", 2, True), TensorFormat.Q4_0),
        (("pack-quantized", 2, False), TensorFormat.Q4_1),
        (("pack-quantized", 8, True), TensorFormat.Q8_0),
        (("pack-quantized", 8, False), TensorFormat.Q8_M),
        (("int-quantized", 8, True), TensorFormat.Q8_0),
        (("int-quantized", 8, False), TensorFormat.Q8_M),
        (("int-quantized", 3, True), TensorFormat.Q4_0),
        (("int-quantized", 6, False), TensorFormat.Q8_M),
    ],
)
def test_codes_are_read_as_blocks_that_a_kernel_runs(
    tmp_path: Path, kind: tuple[str, int, bool], format: TensorFormat, strategy: str
) -> None:
    expected, _ = quantised_folder(tmp_path, *kind, strategy)
    _, bits, symmetric = kind
    model = open_model(tmp_path)
    assert sorted(model.weights.names()) == sorted(expected.names())
    for name, values in expected.arrays.items():
        found = model.weights.dequantize(name)
        if name.startswith("layers.") and values.ndim == 2:
            assert model.weights.info(name).format == format
            assert model.weights.raw(name).size == model.weights.info(name).num_bytes
        largest = 0.01 * (1 << bits)  # minima are rounded to float16
        np.testing.assert_allclose(found, values, rtol=0, atol=0.0 if symmetric else 2**-11 * largest)
        model.weights.release(name)
    model.close()


PACKAGE = pytest.mark.skipif(
    not all(importlib.util.find_spec(package) for package in ("compressed_tensors", "torch")),
    reason="compressed-tensors or torch is not installed",
)


@PACKAGE
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_package_that_defines_the_layout_unpacks_the_same_codes(bits: int) -> None:
    import torch
    from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32

    half = 1 << (bits - 1)
    codes = np.random.default_rng(1).integers(-half, half, (16, 64))
    theirs = pack_to_int32(torch.tensor(codes, dtype=torch.int8), bits)
    np.testing.assert_array_equal(theirs.numpy(), pack(codes + half, bits))


@PACKAGE
@pytest.mark.parametrize("strategy", ["group", "channel", "tensor", "block"])
@pytest.mark.parametrize(("layout", "bits"), [("pack-quantized", 4), ("pack-quantized", 8), ("int-quantized", 8)])
def test_weights_with_zero_points_are_those_that_the_package_reads(
    tmp_path: Path, layout: str, bits: int, strategy: str
) -> None:
    import torch
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationConfig

    _, tensors = quantised_folder(tmp_path, layout, bits, False, strategy)
    scheme = QuantizationConfig.model_validate(config(layout, bits, False, strategy)).config_groups["group_0"]
    model, name = open_model(tmp_path), "layers.0.mlp.down.weight"
    theirs = hf_name(name, "llama").removesuffix("weight")
    parts = {key.removeprefix(theirs): torch.tensor(part) for key, part in tensors.items() if key.startswith(theirs)}
    parts["weight_scale"] = parts["weight_scale"].float()
    found = BaseCompressor.load_from_registry(layout).decompress(parts, scheme)["weight"].float().numpy()
    tolerance = 2**-11 * (1 << bits) * float(parts["weight_scale"].max())
    np.testing.assert_allclose(found, model.weights.dequantize(name), rtol=0, atol=tolerance)
    model.close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "marlin-24"}, "marlin-24"),
        ({"config_groups": {}}, "0 kinds of quantisation"),
        (config("pack-quantized", 3, True), "codes of 3 bits"),
        (config("int-quantized", 9, False), "codes of 9 bits"),
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
