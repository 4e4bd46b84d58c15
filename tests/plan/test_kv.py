"""The KV calculator: the chapter's exercise, and the engine's own bytes."""

import json
from dataclasses import replace

import pytest
from tests.factories.tiny_models import random_weights, tiny_spec

from vivace.cli.main import main
from vivace.engine.kv_memory import bytes_per_block
from vivace.execute.native import NativeExecutor
from vivace.graph.build import build_graph
from vivace.numerics.kv_formats import spread
from vivace.plan.kv import AttentionShape, plan_kv, shape_of
from vivace.types.errors import ConfigError
from vivace.types.kv import KV_FORMAT_NAMES

GIB = 2**30


def test_the_exercise_of_the_chapter() -> None:
    """Chapter 18, exercise 2: 40 layers, 32 heads of 128, 2,048 tokens in FP16; then 8 groups."""
    multi_head = plan_kv(AttentionShape(40, 32, 32, 128), 2048)
    grouped = plan_kv(AttentionShape(40, 32, 8, 128), 2048)
    assert multi_head.total_bytes == 1.25 * GIB
    assert grouped.total_bytes == 0.3125 * GIB
    assert (multi_head.saved_by_sharing, grouped.saved_by_sharing) == (0, 0.75)
    assert [plan.shape.kind for plan in (multi_head, grouped)] == ["MHA", "GQA"]
    assert plan_kv(AttentionShape(40, 32, 1, 128), 2048).shape.kind == "MQA"


@pytest.mark.parametrize("kv_format", KV_FORMAT_NAMES)
@pytest.mark.parametrize("num_kv_heads", [4, 2, 1])
def test_the_bytes_are_those_of_the_engine(num_kv_heads: int, kv_format: str) -> None:
    spec = tiny_spec(num_heads=4, num_kv_heads=num_kv_heads, head_dim=32)
    plan = plan_kv(shape_of(spec), 100, 3, kv_format)
    executor = NativeExecutor(
        build_graph(spec),
        random_weights(spec),
        num_blocks=plan.num_blocks,
        num_local_blocks=plan.num_local_blocks or None,
        num_threads=1,
        kv_format=kv_format,
    )
    assert plan.num_blocks == 3 * 7
    assert plan.num_local_blocks == (3 * 6 if kv_format == "int4+f16" else 0)  # the first, 64 positions, the open one
    local_bytes = executor.bytes_per_local_block * executor.num_local_blocks
    assert plan.total_bytes == executor.bytes_per_block * executor.num_blocks + local_bytes
    assert plan.bytes_per_block + plan.bytes_per_local_block == bytes_per_block(spec, kv_format)


def test_runs_of_layers_are_written_in_a_line() -> None:
    assert spread("int8", 3) == ("int8",) * 3
    assert spread("f16:2,int4:*,f16:1", 6) == ("f16", "f16", "int4", "int4", "int4", "f16")
    assert spread("int8,f16:2", 4) == ("int8", "int8", "f16", "f16")
    assert plan_kv(AttentionShape(4, 4, 2, 32), 64, 1, "f16:1,int4:*") == replace(
        plan_kv(AttentionShape(4, 4, 2, 32), 64, 1, ("f16", "int4", "int4", "int4")), kv_format="f16:1,int4:*"
    )


@pytest.mark.parametrize("choice", ["f16:0", "f16:x", "int8:*,f16:*", "f16:3", "f16:9,int8:*", "int9", ""])
def test_runs_that_do_not_fit_the_layers_are_refused(choice: str) -> None:
    with pytest.raises(ConfigError):
        plan_kv(AttentionShape(4, 4, 2, 32), 64, 1, choice)


def test_layers_may_be_stored_differently() -> None:
    mixed = plan_kv(AttentionShape(2, 4, 2, 64), 16, 1, ["f16", "int8"])
    assert mixed.total_bytes == sum(
        plan_kv(AttentionShape(1, 4, 2, 64), 16, 1, name).total_bytes for name in ("f16", "int8")
    )
    assert mixed.kv_format == "f16,int8"


@pytest.mark.parametrize(
    ("shape", "context", "sequences"),
    [((0, 4, 4, 64), 1, 1), ((1, 4, 3, 64), 1, 1), ((1, 4, 4, 64), 0, 1), ((1, 4, 4, 64), 1, 0)],
)
def test_numbers_that_cannot_be_are_refused(shape: tuple[int, int, int, int], context: int, sequences: int) -> None:
    with pytest.raises(ConfigError):
        plan_kv(AttentionShape(*shape), context, sequences)


SHAPE = ["--layers", "40", "--heads", "32", "--kv-heads", "8", "--head-dim", "128"]


def test_the_command_prints_figures_for_people_and_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "kv", *SHAPE, "--context", "2048"]) == 0
    text = capsys.readouterr().out
    assert "335,544,320 bytes = 0.3125 GiB" in text
    assert "75.0% of what MHA would take" in text
    assert main(["plan", "kv", *SHAPE, "--context", "2048", "--sequences", "2", "--kv-format", "int8", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["total_bytes"] == figures["blocks"] * figures["bytes_per_block"] == 2 * 335_544_320 * 130 // 256


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (SHAPE, "--context"),
        ([*SHAPE, "--model", "smollm2-135m"], "one of the two"),
        (["--layers", "4"], "--heads"),
        (["--model", "/no/such/model.gguf"], "no/such"),
        ([*SHAPE, "--context", "-3"], "context"),
        ([*SHAPE, "--context", "64", "--kv-format", "f16:2,int4:2"], "4 KV formats"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "kv", *arguments]) == 2
    error = capsys.readouterr().err
    assert word in error
    assert error.count("\n") <= 2
