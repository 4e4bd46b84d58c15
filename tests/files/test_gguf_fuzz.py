"""Ten thousand damaged GGUF files: each opens or is refused in one line; none crashes, hangs or eats memory.

Every case is its number: `_mutate(number)` makes it again.
"""

import contextlib
import random
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from factories.gguf_files import small_spec, write_gguf
from vivace.files.open import open_model
from vivace.types.errors import VivaceError
from vivace.types.weights import TensorFormat

CASES, CASES_A_TEST = 10_000, 500
ALLOWED_TIMES_SIZE = 4
ALLOWED_BESIDES = 1 << 20  # interpreter objects that do not grow with the file: messages, dicts, the spec
HUGE = (1 << 64) - 1, 1 << 63, (1 << 63) - 1, 1 << 62, 1 << 48, 1 << 40, 1 << 32, (1 << 32) - 1, 1 << 31, 1 << 24, 0


@pytest.fixture(scope="module")
def sound_files(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Small models of three families, three formats and both tokenizers; the directory comes early in each."""
    folder = tmp_path_factory.mktemp("sound")
    chosen = (
        ("llama", TensorFormat.Q8_0, "gpt2"),
        ("gemma3", TensorFormat.Q4_0, "llama"),
        ("qwen2", TensorFormat.F16, None),
    )
    files = []
    for architecture, format, vocabulary in chosen:
        spec = small_spec(architecture, hidden_size=32, num_layers=1, head_dim=16, num_heads=2, ffn_size=32)
        write_gguf(folder / "model.gguf", spec, format=format, vocabulary=vocabulary)
        files.append((folder / "model.gguf").read_bytes())
    return files


def _header_size(data: bytes) -> int:
    """About where the tensor data begins: mutations before it matter most."""
    return data.rindex(b"blk.0.") + 64


def _flip_bits(data: bytearray, dice: random.Random, limit: int) -> None:
    for _ in range(dice.randint(1, 8)):
        data[dice.randrange(limit)] ^= 1 << dice.randrange(8)


def _set_bytes(data: bytearray, dice: random.Random, limit: int) -> None:
    start = dice.randrange(limit)
    data[start : start + dice.randint(1, 16)] = dice.randbytes(dice.randint(1, 16))


def _truncate(data: bytearray, dice: random.Random, limit: int) -> None:
    del data[dice.randrange(limit if dice.random() < 0.5 else len(data)) :]


def _splice(data: bytearray, dice: random.Random, limit: int) -> None:
    source, target, length = dice.randrange(limit), dice.randrange(limit), dice.randint(1, 400)
    piece = bytes(data[source : source + length])
    data[target : target + (len(piece) if dice.random() < 0.5 else 0)] = piece


def _cut_out(data: bytearray, dice: random.Random, limit: int) -> None:
    start = dice.randrange(limit)
    del data[start : start + dice.randint(1, 200)]


def _huge_number(data: bytearray, dice: random.Random, limit: int) -> None:
    value = dice.choice((*HUGE, len(data), len(data) * 2, dice.getrandbits(64)))
    start = dice.choice((8, 16, dice.randrange(limit)))
    data[start : start + 8] = struct.pack("<Q", value)


def _huge_length_of_a_string(data: bytearray, dice: random.Random, limit: int) -> None:
    key = dice.choice((b"tokenizer.ggml.", b"general.", b"blk.0.", b"attention.", b"rope."))
    places = [place for place in range(limit) if data.startswith(key, place)]
    if places:
        place = dice.choice(places)
        length = int.from_bytes(data[place - 8 : place], "little")
        after = place + min(length, 64) if dice.random() < 0.5 else place - 8
        data[after : after + 8] = struct.pack("<Q", dice.choice(HUGE))


MUTATIONS: tuple[Callable[[bytearray, random.Random, int], None], ...] = (
    _flip_bits,
    _set_bytes,
    _truncate,
    _splice,
    _cut_out,
    _huge_number,
    _huge_length_of_a_string,
)


def _mutate(number: int, sound_files: list[bytes]) -> bytes:
    dice = random.Random(number)
    original = dice.choice(sound_files)
    data = bytearray(original)
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        dice.choice(MUTATIONS)(data, dice, max(1, min(_header_size(original), len(data))))
        if not data:
            break
    return bytes(data)


def _open_and_touch(path: Path) -> None:
    """Do with a file all that loading does."""
    model = open_model(path)
    try:
        assert model.vocabulary is None or len(model.vocabulary.tokens) <= model.spec.vocab_size
        for name in model.weights.names():
            assert model.weights.raw(name).size == model.weights.info(name).num_bytes
        model.weights.dequantize("final_norm.weight")
    finally:
        model.close()


@pytest.mark.parametrize("first", range(0, CASES, CASES_A_TEST))
def test_a_damaged_file_opens_or_is_refused_in_one_line(tmp_path: Path, sound_files: list[bytes], first: int) -> None:
    path = tmp_path / "damaged.gguf"
    for number in range(first, first + CASES_A_TEST):
        path.write_bytes(_mutate(number, sound_files))
        try:
            _open_and_touch(path)
        except VivaceError as error:
            assert error.what and "\n" not in str(error) and len(str(error)) < 500, number
        except BaseException as error:
            raise AssertionError(f"case {number}: {error!r}") from error


def test_memory_stays_within_four_times_the_file(tmp_path: Path, sound_files: list[bytes]) -> None:
    path = tmp_path / "damaged.gguf"
    path.write_bytes(sound_files[0])
    _open_and_touch(path)  # imports and caches are not the file's doing
    tracemalloc.start()
    try:
        for number in range(0, CASES, 10):
            data = _mutate(number, sound_files)
            path.write_bytes(data)
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            with contextlib.suppress(VivaceError):
                _open_and_touch(path)
            peak = tracemalloc.get_traced_memory()[1] - before
            assert peak <= ALLOWED_TIMES_SIZE * len(data) + ALLOWED_BESIDES, number
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ["strings", "keys", "tensors", "text"])
def test_large_files_full_of_small_things_stay_within_four_times_their_size(tmp_path: Path, kind: str) -> None:
    """Files made to be as costly as their format allows, megabytes of them."""
    texts = {
        "strings": struct.pack("<IQQQ", 3, 0, 1, 1) + b"k" + struct.pack("<IIQ", 9, 8, 500_000) + bytes(4_000_000),
        "keys": struct.pack("<IQQ", 3, 0, 1 << 14)
        + b"".join(struct.pack("<Q", 5) + f"{i:05d}".encode() + struct.pack("<IB", 7, 1) for i in range(1 << 14)),
        "tensors": struct.pack("<IQQ", 3, 1 << 16, 0)
        + b"".join(struct.pack("<Q5sIQIQ", 5, f"{i:05d}".encode(), 1, 8, 0, 32 * i) for i in range(1 << 16)),
        "text": struct.pack("<IQQQ", 3, 0, 1, 1) + b"k" + struct.pack("<IQ", 8, 1 << 30) + "😀".encode() * 1_000_000,
    }
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF" + texts[kind] + bytes(1 << 22 if kind == "tensors" else 64))
    tracemalloc.start()
    try:
        with pytest.raises(VivaceError):
            open_model(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= ALLOWED_TIMES_SIZE * path.stat().st_size + ALLOWED_BESIDES
