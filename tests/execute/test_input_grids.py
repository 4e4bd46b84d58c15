"""Inputs of linears on other grids than the engine's own: the core against its numpy twin, and the same text always."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.factories.gguf_files import small_spec, write_gguf
from tests.factories.greedy import assert_alone_as_together, blocks_for, make_batch

from vivace import _native
from vivace.execute.native import NativeExecutor, available_isas
from vivace.execute.native_program import quantized_in
from vivace.execute.reference import ReferenceExecutor
from vivace.files.open import open_model
from vivace.graph.build import build_graph
from vivace.graph.casts import native_policy
from vivace.graph.ops import Linear
from vivace.graph.passes import cast_inputs
from vivace.numerics.input_grids import on_grid
from vivace.numerics.roundings import round_to
from vivace.types.errors import ConfigError, ModelFileError
from vivace.types.input_scheme import PLAIN_INPUTS, InputGrid, InputScheme
from vivace.types.kv import DEFAULT_KV_FORMAT
from vivace.types.weights import TensorFormat

ISAS = available_isas()
GRIDS = {
    "groups in fewer bits": InputGrid(7.0),
    "clipped groups": InputGrid(127.0, clip=0.7),
    "rows": InputGrid(127.0, by_row=True),
    "clipped rows in fewer bits": InputGrid(31.0, clip=0.85, by_row=True),
    "a fixed range": InputGrid(127.0, by_row=True, is_fixed=True, low=-1.5, high=2.5),
    "a fixed range of nothing": InputGrid(127.0, by_row=True, is_fixed=True),
}
SHIFTED = {
    "rows with a zero point": InputGrid(127.0, by_row=True, is_shifted=True),
    "clipped rows with a zero point": InputGrid(7.0, clip=0.8, by_row=True, is_shifted=True),
    "a fixed range with a zero point": InputGrid(
        127.0, by_row=True, is_fixed=True, is_shifted=True, low=-0.25, high=3.0
    ),
}


def rows_of(seed: int = 0, width: int = 96) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).standard_t(3, (7, width)).astype(np.float32)
    rows[2] = 0
    rows[3] = np.abs(rows[3])
    rows[4, :32] = 0
    rows[5] = -np.abs(rows[5])
    return rows


def through_the_core(rows: NDArray[np.float32], grid: InputGrid, *, bits: int, isa: str, threads: int = 2) -> NDArray:
    """Rows as an identity matrix reads them: what their codes stand for."""
    count, width = rows.shape
    memory = _native.ChunkedMemory()
    table = _native.PackedMatrix("F32", np.ascontiguousarray(rows).view(np.uint8).reshape(-1), count, width, 1, memory)
    blocks = np.zeros((width, width // 32, 34), np.uint8)
    blocks[:, :, :2] = np.ones(1, np.float16).view(np.uint8)
    for row in range(width):
        blocks[row, row // 32, 2 + row % 32] = 1
    identity = _native.PackedMatrix("Q8_0", blocks.reshape(-1), width, width, 1, memory)
    program = _native.Program(isa, _native.ThreadPool(threads), 16, 16, 1 << 16, _native.KvPool(["f16"], 1, 1, 16))
    program.set_attention_shape(1, 1, 16, count)
    x = program.add_buffer(0, width, 32, False, False, [])
    codes = program.add_buffer(1 << 13, width, bits, False, False, [float(number) for number in grid])
    out = program.add_buffer(1 << 15, width, 32, False, False, [])
    program.embed(x, [table], 1.0)
    program.quantize(x, codes)
    program.linear(-1, codes, [(identity, -1, out, 0)])
    program.set_output(out)
    numbers = np.arange(count, dtype=np.int32)
    program.start(numbers, numbers, np.array([0, count], np.int32), np.zeros((1, 1), np.int32), numbers)
    return program.finish().copy()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("bits", [8, 12])
def test_the_core_reads_the_numbers_of_the_twin_to_the_bit(name: str, bits: int, isa: str) -> None:
    rows = rows_of()
    found = through_the_core(rows, GRIDS[name], bits=bits, isa=isa)
    assert np.array_equal(found, on_grid(rows, GRIDS[name], fine=bits == 12))
    assert name.endswith("nothing") or np.abs(found).max() > 0


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", SHIFTED)
def test_rows_with_a_zero_point_are_those_of_the_twin_but_for_one_rounding(name: str, isa: str) -> None:
    rows = rows_of(1)
    found = through_the_core(rows, SHIFTED[name], bits=8, isa=isa)
    expected = on_grid(rows, SHIFTED[name], fine=False)
    # scale * code + shift rounds the two terms one by one; the twin rounds scale * (code - zero point) once.
    assert np.abs(found - expected).max() <= 4e-7 * np.abs(expected).max()
    assert not found[2].any()


@given(seed=st.integers(0, 2**32 - 1), top=st.sampled_from([1.0, 7.0, 127.0]), shifted=st.booleans())
@settings(deadline=None, max_examples=40)
def test_a_whole_range_is_met_within_half_a_step(seed: int, top: float, shifted: bool) -> None:
    rows = rows_of(seed, 64)
    found = on_grid(rows, InputGrid(top, by_row=True, is_shifted=shifted), fine=False)
    low, high = np.minimum(rows.min(1, keepdims=True), 0), np.maximum(rows.max(1, keepdims=True), 0)
    step = (high - low) / (2 * top) if shifted else np.maximum(-low, high) / top
    assert (np.abs(found - rows) <= (1.001 if shifted else 0.501) * step + 1e-6).all()
    assert (found[rows == 0] == 0).all()


def test_a_zero_point_gives_one_sided_rows_half_the_step() -> None:
    rows = np.abs(rows_of(2))
    plain, shifted = (on_grid(rows, InputGrid(127.0, by_row=True, is_shifted=on), fine=False) for on in (False, True))
    assert np.square(shifted - rows).sum() < 0.35 * np.square(plain - rows).sum()


def test_a_whole_dynamic_range_by_groups_is_what_is_run_without_a_grid() -> None:
    rows = rows_of(3)
    assert np.array_equal(round_to("int8", rows, InputGrid(127.0)), round_to("int8", rows))
    assert np.array_equal(round_to("int12", rows, InputGrid(127.0)), round_to("int12", rows))


def scheme_of(name: str, buffers: list[str]) -> tuple[int, InputScheme]:
    """Bits and a scheme for every buffer of a model."""
    return {
        "token": (8, InputScheme("token")),
        "token, 12 bits": (12, InputScheme("token")),
        "token, zero point": (8, InputScheme("token", symmetric=False)),
        "tensor": (8, InputScheme("tensor", ranges=dict.fromkeys(buffers, (-2.5, 3.0)))),
        "tensor, zero point": (8, InputScheme("tensor", False, ranges=dict.fromkeys(buffers, (-2.0, 3.0)))),
        "clips": (8, InputScheme(clips=dict.fromkeys(buffers, 0.9))),
        "six bits": (6, PLAIN_INPUTS),
    }[name]


SCHEMES = ("token", "token, 12 bits", "token, zero point", "tensor", "tensor, zero point", "clips", "six bits")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_a_model_gives_the_logits_of_the_oracle_on_the_same_grid(
    architecture: str, scheme: str, tmp_path: Path
) -> None:
    spec = small_spec(architecture)
    write_gguf(tmp_path / "model.gguf", spec, format=TensorFormat.Q4_1)
    model = open_model(tmp_path / "model.gguf")
    graph = build_graph(model.spec)
    tokens = np.random.default_rng(5).integers(0, spec.vocab_size, 40).tolist()
    batch = make_batch([(0, tokens, 0)], 1, blocks_for(40), all_logits=True)
    bits, inputs = scheme_of(scheme, [op.x for op in graph.ops if isinstance(op, Linear)])
    cast = cast_inputs(
        graph, native_policy(bits), quantized_in(model.weights), grid_of=lambda buffer: inputs.grid(buffer, bits)
    )
    plain, expected = (
        ReferenceExecutor(one, model.weights, num_blocks=4, kv_format=DEFAULT_KV_FORMAT).forward(batch)
        for one in (graph, cast)
    )
    found = NativeExecutor(graph, model.weights, num_blocks=4, activation_bits=bits, inputs=inputs).forward(batch)
    off, rounded = (np.abs(found - other).mean(axis=1) for other in (expected, plain))
    # The order of float sums tips a rounding here and there, and later rows see what it did; rows without one agree.
    assert off.mean() < 0.8 * rounded.mean()
    assert bits == 12 or off.min() < 1e-2 * rounded.mean()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("scheme", ["token", "token, zero point", "tensor, zero point", "clips"])
def test_alone_equals_batched_equals_chunked_to_the_bit_on_every_grid(scheme: str, isa: str, tmp_path: Path) -> None:
    spec = small_spec()
    write_gguf(tmp_path / "model.gguf", spec, format=TensorFormat.Q4_0)
    model = open_model(tmp_path / "model.gguf")
    graph = build_graph(model.spec)
    bits, inputs = scheme_of(scheme, [op.x for op in graph.ops if isinstance(op, Linear)])
    executor = NativeExecutor(
        graph, model.weights, num_blocks=120, isa=isa, num_threads=2, activation_bits=bits, inputs=inputs
    )
    prompts = [np.random.default_rng(n).integers(0, spec.vocab_size, n).tolist() for n in (1, 3, 17, 64, 65)]
    assert_alone_as_together(executor, prompts, 8, (1, 7, 512))


def test_a_scheme_without_the_range_of_an_input_is_refused(tmp_path: Path) -> None:
    write_gguf(tmp_path / "model.gguf", small_spec(num_layers=1), format=TensorFormat.Q8_0)
    model = open_model(tmp_path / "model.gguf")
    with pytest.raises(ModelFileError, match="no range of the inputs"):
        NativeExecutor(build_graph(model.spec), model.weights, num_blocks=4, inputs=InputScheme("tensor"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"granularity": "channel"},
        {"symmetric": False},
        {"clips": {"x": 0.0}},
        {"granularity": "tensor", "ranges": {"x": (1.0, 2.0)}},
        {"granularity": "tensor", "ranges": {"x": (0.0, float("nan"))}},
    ],
)
def test_schemes_that_no_kernel_runs_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        InputScheme(**wrong)  # type: ignore[arg-type]
