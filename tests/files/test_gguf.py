"""The GGUF container: what the `gguf` package writes is read, and every lie in a header is caught before it costs."""

import struct
from pathlib import Path

import gguf
import numpy as np
import pytest

from factories.gguf_files import small_spec, write_gguf
from vivace.files.gguf import GgufFile
from vivace.files.gguf_values import StringArray
from vivace.files.gguf_writer import TensorToWrite, WritableValue, header_bytes, write_gguf_file
from vivace.files.open import open_model
from vivace.numerics.formats import quantize
from vivace.types.errors import ConfigError, ModelFileError, UnsupportedModelError, VivaceError
from vivace.types.weights import TensorFormat


def _tensor(name: str = "t", shape: tuple[int, ...] = (4, 8)) -> TensorToWrite:
    data = np.arange(int(np.prod(shape)), dtype="<f4").reshape(-1).view(np.uint8)
    return TensorToWrite(name, shape, TensorFormat.F32, lambda: data)


def _header(num_tensors: int, num_keys: int, rest: bytes = b"", version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, num_tensors, num_keys) + rest


def _string(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data)) + data


def _tensor_entry(name: str, dimensions: tuple[int, ...], type_id: int = 0, offset: int = 0) -> bytes:
    return _string(name) + struct.pack(f"<I{len(dimensions)}QIQ", len(dimensions), *dimensions, type_id, offset)


def _open_bytes(tmp_path: Path, data: bytes) -> GgufFile:
    path = tmp_path / "file.gguf"
    path.write_bytes(data)
    return GgufFile(path)


def test_a_file_of_the_gguf_package_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint64("a.u64", 1 << 40)
    writer.add_int8("a.i8", -3)
    writer.add_float64("a.f64", 0.1)
    writer.add_bool("a.flag", True)
    writer.add_string("a.text", "héllo")
    writer.add_array("a.strings", ["x", "", "Ġy"])
    writer.add_array("a.numbers", [1, -2, 3])
    matrix = np.arange(64, dtype=np.float32).reshape(2, 32)
    writer.add_tensor("matrix", matrix)
    writer.add_tensor("half", matrix.astype(np.float16))
    packed = gguf.quants.quantize(matrix, gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("packed", packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = GgufFile(path)
    plain = {key: file.metadata[key] for key in ("a.u64", "a.i8", "a.f64", "a.flag", "a.text")}
    assert plain == {"a.u64": 1 << 40, "a.i8": -3, "a.f64": 0.1, "a.flag": True, "a.text": "héllo"}
    strings = file.metadata["a.strings"]
    assert isinstance(strings, StringArray) and list(strings) == ["x", "", "Ġy"] and len(strings) == 3
    numbers = file.metadata["a.numbers"]
    assert isinstance(numbers, np.ndarray) and numbers.tolist() == [1, -2, 3]
    assert [tensor.format.value for tensor in file.tensors.values()] == ["F32", "F16", "Q8_0"]
    assert file.tensors["packed"].shape == (2, 32)
    np.testing.assert_array_equal(file.tensor_bytes("matrix").view("<f4").reshape(2, 32), matrix)
    assert file.tensor_bytes("packed").tobytes() == packed.tobytes()


def test_what_we_write_is_read_by_the_gguf_package(tmp_path: Path) -> None:
    keys: dict[str, WritableValue] = {
        "general.architecture": "llama",
        "list": ["a", "b"],
        "flags": np.array([True, False]),
        "big": -(1 << 40),
        "pi": 3.5,
        "small": np.int8(-2),
    }
    write_gguf_file(tmp_path / "file.gguf", keys, [_tensor("one"), _tensor("two", (3,))], alignment=64)
    reader = gguf.GGUFReader(tmp_path / "file.gguf")
    assert {key: reader.fields[key].contents() for key in keys} == {
        **keys,
        "flags": [True, False],
        "small": -2,
    }
    assert [tensor.name for tensor in reader.tensors] == ["one", "two"]
    np.testing.assert_array_equal(reader.tensors[0].data, np.arange(32, dtype=np.float32).reshape(4, 8))
    assert not [path for path in tmp_path.iterdir() if path.name != "file.gguf"]


@pytest.mark.parametrize("format", [TensorFormat.N8_0, TensorFormat.Q8_64, TensorFormat.Q4_64, TensorFormat.Q8_M])
def test_a_tensor_of_our_own_format_is_refused_by_programs_that_do_not_know_it(
    tmp_path: Path, format: TensorFormat
) -> None:
    data = quantize(format, np.ones((2, 64), np.float32))
    own = TensorToWrite("own", (2, 64), format, lambda: data)
    write_gguf_file(tmp_path / "file.gguf", {"general.architecture": "llama"}, [own])
    assert GgufFile(tmp_path / "file.gguf").tensors["own"].format is format
    with pytest.raises(ValueError, match="not a valid GGMLQuantizationType"):
        gguf.GGUFReader(tmp_path / "file.gguf")


@pytest.mark.parametrize("count", [0, 1, 3, 8191, 8192, 8193, 20_000])
def test_string_arrays_of_any_length_and_content_are_read(tmp_path: Path, count: int) -> None:
    words = ["", "a", "Ġthe", "你好", "👩‍👩‍👧", "x" * 300, "\n"]
    strings = [words[index % 7] + str(index % 11) * (index % 3) for index in range(count)]
    write_gguf_file(tmp_path / "file.gguf", {"plain": strings, "with nul": [*strings, "a\0b", "\0"]}, [])
    file = GgufFile(tmp_path / "file.gguf")
    plain, with_nul = file.metadata["plain"], file.metadata["with nul"]
    assert isinstance(plain, StringArray) and plain.decode() == strings
    assert isinstance(with_nul, StringArray) and with_nul.decode() == [*strings, "a\0b", "\0"]


def test_version_2_is_read_alike(tmp_path: Path) -> None:
    write_gguf_file(tmp_path / "file.gguf", {"a": 1}, [_tensor()])
    data = bytearray((tmp_path / "file.gguf").read_bytes())
    data[4] = 2
    assert _open_bytes(tmp_path, bytes(data)).version == 2


def test_tensors_to_write_must_have_the_bytes_their_shape_asks_for(tmp_path: Path) -> None:
    wrong = TensorToWrite("t", (2, 2), TensorFormat.F32, lambda: np.zeros(3, np.uint8))
    with pytest.raises(ConfigError, match="has 3 bytes"):
        write_gguf_file(tmp_path / "file.gguf", {}, [wrong])
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigError, match="no type for complex"):
        header_bytes({"key": np.complex64(1)}, [], 32)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PK\x03\x04" + bytes(60), "a zip archive"),
        (b"<!DOCTYPE html><html>", "an HTML page"),
        (b"  <html>", "an HTML page"),
        ((100).to_bytes(8, "little") + b'{"a":{}}', "a safetensors file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"\x80\x02}q", "a Python pickle"),
        (b'{"error": "no"}', "JSON text"),
        (b"tjgg\1\0\0\0", "the older GGJT format"),
        (bytes(100), "a run of zero bytes"),
        (b"hello", "plain text"),
        (b"\xde\xad\xbe\xef", "unknown binary data (it starts with de ad be ef)"),
    ],
)
def test_another_kind_of_file_is_recognised(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(ModelFileError) as caught:
        _open_bytes(tmp_path, content)
    assert f"it looks like {words}" in str(caught.value) or words in str(caught.value)


_T = _tensor_entry
LIES: dict[str, tuple[bytes, type[VivaceError], str]] = {
    "empty": (b"", ModelFileError, "is empty"),
    "magic only": (b"GGUF", ModelFileError, "ends inside the header"),
    "big-endian": (b"GGUF\0\0\0\3" + bytes(100), UnsupportedModelError, "big-endian"),
    "version 1": (_header(0, 0, version=1), UnsupportedModelError, "version 1"),
    "version 9": (_header(0, 0, version=9), UnsupportedModelError, "version 9"),
    "tensors": (_header(1 << 60, 0), ModelFileError, "claims 1152921504606846976 tensors"),
    "keys": (_header(0, 1 << 60), ModelFileError, "claims 1152921504606846976 metadata keys"),
    "key length": (_header(0, 1, struct.pack("<Q", 1 << 62)), ModelFileError, "A metadata key claims"),
    "missing value": (_header(0, 1, _string("k")), ModelFileError, "ends inside 'k'"),
    "value type": (_header(0, 1, _string("k") + struct.pack("<I", 77)), ModelFileError, "value type 77"),
    "text length": (_header(0, 1, _string("k") + struct.pack("<IQ", 8, 1 << 40)), ModelFileError, "'k' claims"),
    "array count": (
        _header(0, 1, _string("k") + struct.pack("<IIQ", 9, 5, 1 << 61)),
        ModelFileError,
        "ends inside 'k'",
    ),
    "array wrap": (
        _header(0, 1, _string("k") + struct.pack("<IIQ", 9, 10, (1 << 64) - 1)),
        ModelFileError,
        "inside 'k'",
    ),
    "strings": (
        _header(0, 1, _string("k") + struct.pack("<IIQ", 9, 8, 1 << 40)),
        ModelFileError,
        "claims 1099511627776",
    ),
    "string": (
        _header(0, 1, _string("k") + struct.pack("<IIQQ", 9, 8, 1, 1 << 63)),
        ModelFileError,
        "longer than the model file",
    ),
    "nested": (_header(0, 1, _string("k") + struct.pack("<IIQ", 9, 9, 1)), ModelFileError, "arrays within arrays"),
    "same key": (_header(0, 2, (_string("k") + struct.pack("<IB", 7, 1)) * 2), ModelFileError, "appears twice"),
    "alignment": (
        _header(0, 1, _string("general.alignment") + struct.pack("<II", 4, 33)),
        ModelFileError,
        "no power of two",
    ),
    "dimensions": (_header(1, 0, _string("t") + struct.pack("<I", 9)), ModelFileError, "has 9 dimensions"),
    "no dimensions": (_header(1, 0, _T("t", ())), ModelFileError, "has 0 dimensions"),
    "empty shape": (_header(1, 0, _T("t", (0, 4))), ModelFileError, "impossible shape"),
    "huge shape": (_header(1, 0, _T("t", (1 << 40, 1 << 40))), ModelFileError, "impossible shape"),
    "tensor type": (_header(1, 0, _T("t", (32,), 10)), UnsupportedModelError, "type Q2_K. vivace reads F32, F16"),
    "unknown type": (_header(1, 0, _T("t", (32,), 999)), UnsupportedModelError, "type number 999"),
    "row": (_header(1, 0, _T("t", (33,), 2) + bytes(64)), ModelFileError, "Q4_0 blocks of 32"),
    "past end": (_header(1, 0, _T("t", (32,)) + bytes(64)), ModelFileError, "past the end"),
    "offset": (_header(1, 0, _T("t", (1,), 0, 8) + bytes(64)), ModelFileError, "not a multiple of 32"),
    "same name": (_header(2, 0, _T("t", (1,)) * 2 + bytes(64)), ModelFileError, "appears twice"),
    "overlap": (_header(2, 0, _T("t", (9,)) + _T("u", (1,), 0, 32) + bytes(96)), ModelFileError, "overlap"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_in_a_header_is_caught(tmp_path: Path, lie: str) -> None:
    data, kind, words = LIES[lie]
    with pytest.raises(kind) as caught:
        _open_bytes(tmp_path, data)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_an_invalid_vocabulary_is_named_when_it_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_gguf(path)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"<|user|>", b"<|us\xff\xfe|>", 1))
    with pytest.raises(ModelFileError, match="not valid UTF-8"):
        _ = open_model(path).vocabulary


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"tokenizer.ggml.model": "bert"}, "of kind 'bert'"),
        ({"tokenizer.ggml.token_type": np.ones(3, np.int32)}, "has 3 entries for 320 tokens"),
        ({"tokenizer.ggml.tokens": np.ones(3, np.int32)}, "is not an array of strings"),
        ({"tokenizer.ggml.tokens": ["a"] * 321}, "has 321 tokens, but the embedding has 320 rows"),
        ({"tokenizer.ggml.tokens": []}, "has 0 tokens"),
        ({"tokenizer.ggml.token_type": np.ones(320, np.float32)}, "does not hold whole numbers"),
        ({"tokenizer.ggml.scores": "high"}, "is not an array of numbers"),
        ({"tokenizer.ggml.bos_token_id": "first"}, "is not one whole number"),
    ],
)
def test_a_contradictory_vocabulary_is_named(tmp_path: Path, keys: dict[str, WritableValue], message: str) -> None:
    write_gguf(tmp_path / "model.gguf", metadata=keys)
    with pytest.raises(VivaceError, match=message):
        _ = open_model(tmp_path / "model.gguf").vocabulary


def test_both_kinds_of_vocabulary_are_read(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_gguf(path, vocabulary="llama", metadata={"tokenizer.ggml.padding_token_id": np.int32(-1)})
    vocabulary = open_model(path).vocabulary
    assert vocabulary is not None and vocabulary.special_ids == {"bos": 1, "eos": 2, "unknown": 0}  # -1 means none
    assert vocabulary.add_bos and vocabulary.add_space_prefix and vocabulary.token_types[:4] == [2, 3, 3, 6]
    write_gguf(path, vocabulary=None)
    assert open_model(path).vocabulary is None


def test_a_split_model_is_opened_by_its_first_part(tmp_path: Path) -> None:
    whole = tmp_path / "model.gguf"
    weights = write_gguf(whole)
    file = GgufFile(whole)
    names = list(file.tensors)
    for number, part in enumerate((names[:10], names[10:20], names[20:]), start=1):
        tensors = [
            TensorToWrite(
                name, file.tensors[name].shape, file.tensors[name].format, lambda n=name: file.tensor_bytes(n)
            )
            for name in part
        ]
        keys = {key: value for key, value in file.metadata.items() if number == 1}
        keys = {key: list(value) if isinstance(value, StringArray) else value for key, value in keys.items()}
        keys |= {"split.no": np.uint16(number - 1), "split.count": np.uint16(3)}
        write_gguf_file(tmp_path / f"model-{number:05d}-of-00003.gguf", keys, tensors)
    model = open_model(tmp_path / "model-00001-of-00003.gguf")
    for name in weights.names():
        np.testing.assert_array_equal(model.weights.dequantize(name), weights.arrays[name])
        model.weights.release(name)
    model.close()
    with pytest.raises(ModelFileError, match=r"Give its first part, .*model-00001-of-00003\.gguf"):
        open_model(tmp_path / "model-00002-of-00003.gguf")
    (tmp_path / "model-00003-of-00003.gguf").unlink()
    with pytest.raises(ModelFileError, match=r"model-00003-of-00003\.gguf of a split model is missing"):
        open_model(tmp_path / "model-00001-of-00003.gguf")


def test_a_tensor_the_architecture_does_not_have_is_refused(tmp_path: Path) -> None:
    write_gguf(tmp_path / "model.gguf", small_spec("qwen3"))
    data = (tmp_path / "model.gguf").read_bytes().replace(b"attn_q_norm", b"attn_q_warm")
    (tmp_path / "model.gguf").write_bytes(data)
    with pytest.raises(UnsupportedModelError, match="attn_q_warm"):
        open_model(tmp_path / "model.gguf")


def test_what_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="does not exist"):
        open_model(tmp_path / "none.gguf")
    with pytest.raises(ModelFileError, match="is a folder without config"):
        open_model(tmp_path)
    write_gguf(tmp_path / "inside.gguf")
    with pytest.raises(ModelFileError, match=r"Give the file inside it: .*inside\.gguf"):
        open_model(tmp_path)
    model = open_model(tmp_path / "inside.gguf")
    with pytest.raises(ModelFileError, match=r"no tensor nose\.weight"):
        model.weights.info("nose.weight")
