"""The reference executor on random weights: paging, chunks, batches, windows and heads leave the logits alone."""

from dataclasses import replace

import numpy as np
import pytest

from factories.greedy import blocks_for, greedy_continuations, make_batch
from factories.tiny_models import ARCHITECTURES, random_weights, tiny_spec
from vivace.execute.reference import ReferenceExecutor, gelu_tanh, silu
from vivace.execute.reference_attention import visible
from vivace.graph.build import build_graph
from vivace.graph.passes import cut_after_layer, fuse_add_norm, fuse_linears
from vivace.types.errors import ConfigError, EngineError, ModelFileError
from vivace.types.model import ModelSpec
from vivace.types.step import BLOCK_SIZE


def executor_of(spec: ModelSpec, *, num_blocks: int = 32, max_rows: int = 512) -> ReferenceExecutor:
    return ReferenceExecutor(build_graph(spec), random_weights(spec), num_blocks=num_blocks, max_rows=max_rows)


def tokens(count: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(0, 97, count).tolist()


def all_logits(executor: ReferenceExecutor, ids: list[int]) -> np.ndarray:
    return executor.forward(make_batch([(0, ids, 0)], 1, blocks_for(len(ids)), all_logits=True))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("chunk", [1, 7, 16, 33])
def test_a_prompt_in_chunks_gives_the_logits_of_the_whole(architecture: str, chunk: int) -> None:
    spec, ids = tiny_spec(architecture), tokens(50)
    expected = all_logits(executor_of(spec), ids)
    executor = executor_of(spec)
    pieces = [
        executor.forward(make_batch([(0, ids[start : start + chunk], start)], 1, blocks_for(50), all_logits=True))
        for start in range(0, 50, chunk)
    ]
    np.testing.assert_allclose(np.concatenate(pieces), expected, atol=2e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_sequence_computes_the_same_beside_others(architecture: str) -> None:
    spec = tiny_spec(architecture)
    prompts = [tokens(length, seed=length) for length in (1, 15, 16, 17, 40)]
    together, _ = greedy_continuations(executor_of(spec, num_blocks=64), prompts, 20)
    for prompt, expected in zip(prompts, together, strict=True):
        alone, _ = greedy_continuations(executor_of(spec), [prompt], 20, chunk=7)
        assert alone == [expected]


def test_shares_of_several_sequences_in_one_batch_stay_apart() -> None:
    spec, first, second = tiny_spec(), tokens(20, 1), tokens(9, 2)
    executor = executor_of(spec)
    both = executor.forward(make_batch([(0, first, 0), (1, second, 0)], 2, 2))
    alone = [all_logits(executor_of(spec), ids)[-1] for ids in (first, second)]
    np.testing.assert_allclose(both, np.stack(alone), atol=2e-5)


@pytest.mark.parametrize("num_kv_heads", [1, 2, 4])
def test_shared_kv_heads_equal_full_heads_with_repeated_weights(num_kv_heads: int) -> None:
    spec = tiny_spec(num_kv_heads=num_kv_heads)
    weights = random_weights(spec)
    full = tiny_spec(num_kv_heads=4)
    repeated = random_weights(full)
    repeated.arrays.update(weights.arrays)
    for name in [name for name in weights.arrays if name.endswith(("attn.k.weight", "attn.v.weight"))]:
        heads = weights.arrays[name].reshape(num_kv_heads, spec.attention.head_dim, -1)
        repeated.arrays[name] = np.repeat(heads, 4 // num_kv_heads, axis=0).reshape(-1, spec.hidden_size)
    grouped = ReferenceExecutor(build_graph(spec), weights, num_blocks=4)
    whole = ReferenceExecutor(build_graph(full), repeated, num_blocks=4)
    ids = tokens(30)
    np.testing.assert_allclose(all_logits(grouped, ids), all_logits(whole, ids), atol=2e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_fused_ops_compute_what_their_parts_do(architecture: str) -> None:
    spec = tiny_spec(architecture)
    graph, ids = build_graph(spec), tokens(20)
    fused = fuse_linears(fuse_add_norm(graph))
    assert len(fused.ops) < len(graph.ops)
    expected = all_logits(ReferenceExecutor(graph, random_weights(spec), num_blocks=4), ids)
    found = all_logits(ReferenceExecutor(fused, random_weights(spec), num_blocks=4), ids)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("fused", [False, True])
def test_a_cut_model_equals_a_model_of_fewer_layers(architecture: str, fused: bool) -> None:
    spec = tiny_spec(architecture)
    weights = random_weights(spec)
    graph = build_graph(spec)
    cut = cut_after_layer(fuse_linears(fuse_add_norm(graph)) if fused else graph, 2)
    attention = replace(spec.attention, windows=spec.attention.windows[:2])
    small = build_graph(replace(spec, num_layers=2, attention=attention))
    ids = tokens(20)
    expected = all_logits(ReferenceExecutor(small, weights, num_blocks=4), ids)
    np.testing.assert_array_equal(all_logits(ReferenceExecutor(cut, weights, num_blocks=4), ids), expected)


def test_a_window_hides_what_lies_before_it() -> None:
    seen = visible(np.array([0, 3, 9], np.int32), 10, 4)
    assert [row.nonzero()[0].tolist() for row in seen] == [[0], [0, 1, 2, 3], [6, 7, 8, 9]]


def test_tokens_out_of_every_window_do_not_matter_to_a_model_of_local_layers() -> None:
    spec = tiny_spec("gemma3", num_layers=2)  # two local layers of 5: nothing past 8 tokens back is seen
    ids = tokens(30)
    changed = [(token + 1) % 97 for token in ids[:21]] + ids[21:]
    np.testing.assert_array_equal(all_logits(executor_of(spec), ids)[-1], all_logits(executor_of(spec), changed)[-1])
    changed = [*ids[:20], (ids[20] + 1) % 97, (ids[21] + 1) % 97, *ids[22:]]
    assert not np.array_equal(all_logits(executor_of(spec), ids)[-1], all_logits(executor_of(spec), changed)[-1])


def test_copied_blocks_continue_as_the_original_does() -> None:
    spec, ids = tiny_spec(), tokens(2 * BLOCK_SIZE)
    executor = executor_of(spec, num_blocks=4)
    executor.forward(make_batch([(0, ids[:-1], 0)], 2, 2))
    executor.copy_blocks([(1, 3), (0, 2)])
    original = executor.forward(make_batch([(0, ids[-1:], len(ids) - 1)], 2, 2)).copy()
    copied = executor.forward(make_batch([(1, ids[-1:], len(ids) - 1)], 2, 2))
    np.testing.assert_array_equal(copied, original)


def test_no_wanted_rows_give_no_logits_but_write_keys_and_values() -> None:
    spec, ids = tiny_spec(), tokens(20)
    executor = executor_of(spec)
    silent = replace(make_batch([(0, ids[:-1], 0)], 1, 2), logit_rows=np.zeros(0, np.int32))
    assert executor.forward(silent).shape == (0, spec.vocab_size)
    last = executor.forward(make_batch([(0, ids[-1:], 19)], 1, 2))
    np.testing.assert_allclose(last[0], all_logits(executor_of(spec), ids)[-1], atol=2e-5)


def test_activations_neither_overflow_nor_lose_their_sign() -> None:
    x = np.array([-1e4, -100.0, -1.0, 0.0, 1.0, 100.0, 1e4], np.float32)
    with np.errstate(over="ignore"):
        expected = x / (1 + np.exp(-x.astype(np.float64)))
    np.testing.assert_allclose(silu(x), expected, atol=1e-6)
    assert gelu_tanh(x).tolist()[-2:] == [100.0, 1e4]
    np.testing.assert_allclose(gelu_tanh(x)[2:5], [-0.158808, 0.0, 0.841192], atol=1e-6)


def test_too_many_rows_are_refused() -> None:
    with pytest.raises(EngineError, match="9 rows"):
        all_logits(executor_of(tiny_spec(), max_rows=8), tokens(9))


def test_a_missing_weight_is_named_before_anything_runs() -> None:
    spec = tiny_spec()
    weights = random_weights(spec)
    del weights.arrays["layers.1.mlp.up.weight"]
    with pytest.raises(ModelFileError, match=r"layers\.1\.mlp\.up\.weight"):
        ReferenceExecutor(build_graph(spec), weights, num_blocks=4)


def test_a_weight_of_the_wrong_shape_is_named_before_anything_runs() -> None:
    spec = tiny_spec()
    weights = random_weights(spec)
    weights.arrays["layers.0.attn.k.weight"] = np.zeros((4, 4), np.float32)
    with pytest.raises(ModelFileError, match=r"attn\.k\.weight.*\(4, 4\)"):
        ReferenceExecutor(build_graph(spec), weights, num_blocks=4)


def test_a_broken_graph_is_refused() -> None:
    spec = tiny_spec()
    graph = build_graph(spec)
    with pytest.raises(ConfigError, match="before it is written"):
        ReferenceExecutor(replace(graph, ops=graph.ops[1:]), random_weights(spec), num_blocks=4)
