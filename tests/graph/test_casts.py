"""Inference casts: one table decides what may be read in less than float32, and both executors do what it says."""

from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factories.greedy import blocks_for, make_batch
from factories.tiny_models import ARCHITECTURES, random_weights, tiny_spec
from vivace.execute.reference import ReferenceExecutor
from vivace.graph.access import buffers_read
from vivace.graph.build import build_graph
from vivace.graph.casts import POLICIES, RULES, CastPolicy, find_policy, native_policy, rule_of
from vivace.graph.graph import Graph
from vivace.graph.ops import Cast, FusedLinear, Linear, Op
from vivace.graph.passes import cast_inputs, cut_after_layer, fuse_add_norm, fuse_linears, validate
from vivace.numerics.roundings import ROUNDINGS, round_to
from vivace.types.errors import ConfigError


def with_casts(architecture: str, policy: CastPolicy, *, quantized: bool = True) -> Graph:
    return cast_inputs(build_graph(tiny_spec(architecture)), policy, lambda name: quantized)


def test_every_kind_of_op_stands_on_one_list_with_a_reason() -> None:
    kinds = [kind for rule in RULES for kind in rule.ops]
    assert sorted(kinds, key=str) == sorted(set(get_args(Op)) - {Cast}, key=str)
    assert all(rule.why for rule in RULES)
    assert {rule.what for rule in RULES if rule.is_allowed} == {"matrix product"}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_op_reads_what_the_table_says_and_writes_float32(architecture: str, policy: str) -> None:
    graph = with_casts(architecture, POLICIES[policy])
    validate(graph)
    casts = {op.out: op for op in graph.ops if isinstance(op, Cast)}
    for op in graph.ops:
        if isinstance(op, Cast):
            assert op.x not in casts  # nothing is rounded twice
            continue
        found = {casts[name].precision if name in casts else "f32" for name in buffers_read(op)}
        wanted = POLICIES[policy].over_codes if rule_of(op).is_allowed else POLICIES[policy].denied
        assert found <= {wanted}
    assert graph.output not in casts


def test_readers_of_one_buffer_share_a_cast_and_stay_one_op() -> None:
    graph = fuse_add_norm(fuse_linears(with_casts("llama", native_policy(12))))
    fused = [op for op in graph.ops if isinstance(op, FusedLinear)]
    assert len(fused) == 2 * 3
    assert all(op.x.endswith(":int12") for op in fused)
    assert sum(isinstance(op, Cast) for op in graph.ops) == 4 * 3 + 1


def test_linears_over_floats_and_over_codes_read_what_each_wants() -> None:
    graph = build_graph(tiny_spec("llama"))
    mixed = cast_inputs(graph, native_policy(8), lambda name: not name.endswith("attn.k.weight"))
    reads = {op.weight: op.x for op in mixed.ops if isinstance(op, Linear)}
    assert reads["layers.0.attn.q.weight"] == reads["layers.0.attn.k.weight"] + ":int8"
    fused = [op.weights for op in fuse_linears(mixed).ops if isinstance(op, FusedLinear)]
    assert ("layers.0.attn.q.weight", "layers.0.attn.v.weight") in fused


def test_only_linears_over_bfloats_read_what_is_said_of_them() -> None:
    graph = build_graph(tiny_spec("llama"))
    policy = native_policy(8, has_pairs=True)
    mixed = cast_inputs(graph, policy, lambda _: False, lambda name: name.endswith("mlp.down.weight"))
    rounded = {op.weight for op in mixed.ops if isinstance(op, Linear) and ":" in op.x}
    assert rounded == {f"layers.{layer}.mlp.down.weight" for layer in range(3)}
    assert native_policy(12, has_pairs=True) == native_policy(12)


def test_casts_go_with_the_layers_that_are_cut_off() -> None:
    graph = cut_after_layer(with_casts("llama", native_policy(12)), 1)
    validate(graph)
    assert sum(isinstance(op, Cast) for op in graph.ops) == 4 + 1


def test_an_unknown_policy_or_precision_is_named() -> None:
    with pytest.raises(ConfigError, match="amp"):
        find_policy("fast")
    with pytest.raises(ConfigError, match="int12"):
        round_to("int3", np.zeros((1, 32), np.float32))
    with pytest.raises(ConfigError, match="groups of 32"):
        round_to("int8", np.zeros((1, 24), np.float32))


@pytest.mark.parametrize(("precision", "step"), [("bf16", 2**-8), ("f16", 2**-11)])
@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 999))
def test_floats_are_rounded_to_nearest(precision: str, step: float, seed: int) -> None:
    rows = np.random.default_rng(seed).normal(0, 2, (3, 40)).astype(np.float32)
    found = round_to(precision, rows)
    assert (np.abs(found - rows) <= step * np.abs(rows)).all()
    np.testing.assert_array_equal(round_to(precision, found), found)


@pytest.mark.parametrize(("precision", "steps"), [("int8", 127), ("int12", 119 * 256 / 16)])
@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 999), zero=st.booleans())
def test_integers_are_within_half_a_step_of_the_largest_of_their_group(
    precision: str, steps: float, seed: int, *, zero: bool
) -> None:
    rows = np.random.default_rng(seed).standard_t(2, (3, 64)).astype(np.float32)
    if zero:
        rows[1, :32] = 0
    largest = np.abs(rows.reshape(-1, 32)).max(axis=1).reshape(3, 2).repeat(32, axis=1)
    assert (np.abs(round_to(precision, rows) - rows) <= 0.54 * largest / steps).all()


def test_denied_ops_are_why_there_are_two_lists() -> None:
    spec = tiny_spec("llama")
    graph, weights = build_graph(spec), random_weights(spec)
    batch = make_batch([(0, list(range(40)), 0)], 1, blocks_for(40), all_logits=True)
    logits = {
        name: ReferenceExecutor(cast_inputs(graph, POLICIES[name], lambda _: False), weights, num_blocks=4).forward(
            batch
        )
        for name in ("f32", "amp", "everything-bf16")
    }
    errors = [float(np.abs(logits[name] - logits["f32"]).mean()) for name in ("amp", "everything-bf16")]
    assert 0 < errors[0] < errors[1]
    assert set(ROUNDINGS) >= {policy.over_codes for policy in POLICIES.values()}
