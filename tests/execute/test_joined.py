"""Steps of a few streams: ops done in the same tasks, and rows that each thread takes through the step by itself."""

from pathlib import Path

import numpy as np
import pytest
from tests.factories.gguf_files import small_spec, write_gguf
from tests.factories.greedy import blocks_for, make_batch

from vivace.execute.native import NativeExecutor, available_isas
from vivace.files.open import open_model
from vivace.graph.build import build_graph
from vivace.types.weights import TensorFormat

CONTEXT = 70  # more than one tile of keys


def make_executor(folder: Path, architecture: str = "llama", **settings: object) -> NativeExecutor:
    """Two threads; widths that both kinds of codes divide."""
    spec = small_spec(architecture, head_dim=32, ffn_size=192, num_layers=3)
    write_gguf(folder / "model.gguf", spec, format=TensorFormat.Q4_1)
    model = open_model(folder / "model.gguf")
    defaults = {"num_blocks": 40 * blocks_for(CONTEXT + 1), "num_threads": 2}
    return NativeExecutor(build_graph(model.spec), model.weights, **(defaults | settings))  # type: ignore[arg-type]


def read_prompts(executor: NativeExecutor, count: int) -> list[tuple[int, list[int], int]]:
    """Read one prompt a stream; returns the shares of the next step. Lengths differ."""
    draw = np.random.default_rng(count)
    shares = []
    for table in range(count):
        ids = [int(token) for token in draw.integers(0, 320, CONTEXT - table % 7)]
        executor.forward(make_batch([(table, ids[:-1], 0)], count, blocks_for(CONTEXT + 1)))
        shares.append((table, ids[-1:], len(ids) - 1))
    return shares


@pytest.mark.parametrize("count", [2, 8, 15, 16, 20, 32, 33])
@pytest.mark.parametrize("settings", [{}, {"activation_bits": 8}, {"weight_format": "int8"}], ids=str)
def test_any_number_of_streams_gives_each_the_bits_it_has_alone(
    count: int, settings: dict[str, object], tmp_path: Path
) -> None:
    executor = make_executor(tmp_path, **settings)
    shares = read_prompts(executor, count)
    together = executor.forward(make_batch(shares, count, blocks_for(CONTEXT + 1))).copy()
    for share, row in zip(shares, together, strict=True):
        alone = executor.forward(make_batch([share], count, blocks_for(CONTEXT + 1)))[0]
        assert np.array_equal(alone, row)


@pytest.mark.parametrize("kv_format", ["f16", "bf16", "int8", "int4+f16"])
@pytest.mark.parametrize("architecture", ["llama", "gemma3", "qwen3"])
@pytest.mark.parametrize("isa", available_isas())
def test_joined_ops_give_the_bits_of_single_ones(isa: str, architecture: str, kv_format: str, tmp_path: Path) -> None:
    """One thread joins attention from four tasks on, and takes eight rows through the step op by op."""
    executor = make_executor(tmp_path, architecture, isa=isa, kv_format=kv_format, num_threads=1)
    shares = read_prompts(executor, 8)
    by_rows = executor.forward(make_batch(shares, 8, blocks_for(CONTEXT + 1))).copy()
    joined = executor.forward(make_batch(shares[:5], 8, blocks_for(CONTEXT + 1))).copy()
    assert np.array_equal(joined, by_rows[:5])


def test_heads_gates_and_rounding_have_no_tasks_of_their_own_where_eight_streams_write(tmp_path: Path) -> None:
    executor = make_executor(tmp_path)
    shares = read_prompts(executor, 8)
    executor.time_ops()
    executor.forward(make_batch(shares, 8, blocks_for(CONTEXT + 1)))
    taken: dict[str, float] = {}
    for name, seconds in executor.op_seconds():
        taken[name] = taken.get(name, 0.0) + seconds
    assert taken["heads"] == taken["gated"] == taken["quantize"] == 0
    assert taken["attention"] > 0 and taken["linear"] > 0
