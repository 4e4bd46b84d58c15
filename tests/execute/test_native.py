"""The native executor against the oracle, on every kernel table the machine has, and its promise of the same text."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.factories.gguf_files import small_spec, write_gguf
from tests.factories.greedy import assert_alone_as_together, blocks_for, make_batch
from tests.factories.tiny_models import ARCHITECTURES, random_weights, tiny_spec

from vivace.execute.native import NativeExecutor, available_isas
from vivace.execute.native_program import bfloats_in, quantized_in
from vivace.execute.reference import ReferenceExecutor
from vivace.files.open import open_model
from vivace.graph.build import build_graph
from vivace.graph.casts import native_policy
from vivace.graph.passes import cast_inputs, cut_after_layer
from vivace.types.errors import ConfigError, EngineError, UnsupportedModelError
from vivace.types.kv import DEFAULT_KV_FORMAT
from vivace.types.weights import TensorFormat

ISAS = available_isas()
HEADS = {"MHA": (4, 4), "GQA": (4, 2), "MQA": (4, 1)}


def random_tokens(count: int, vocab: int, seed: int = 5) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(0, vocab, count)]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_float_models_give_the_logits_of_the_oracle(architecture: str, heads: str, isa: str) -> None:
    num_heads, num_kv_heads = HEADS[heads]
    spec = tiny_spec(architecture, num_heads=num_heads, num_kv_heads=num_kv_heads)
    graph, weights = build_graph(spec), random_weights(spec)
    batch = make_batch([(0, random_tokens(70, spec.vocab_size), 0)], 1, blocks_for(70), all_logits=True)
    expected = ReferenceExecutor(graph, weights, num_blocks=8).forward(batch)
    found = NativeExecutor(graph, weights, num_blocks=8, isa=isa, num_threads=2).forward(batch)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 5e-3 * np.abs(expected).max()  # keys and values are kept in float16


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("format", [format for format in TensorFormat if format is not TensorFormat.F32])
def test_every_format_gives_the_logits_of_the_oracle(format: TensorFormat, isa: str, tmp_path: Path) -> None:
    wide = format.endswith(("_K", "_64"))
    spec = small_spec(hidden_size=256, ffn_size=512, head_dim=64) if wide else small_spec()
    write_gguf(tmp_path / "model.gguf", spec, format=format)
    model = open_model(tmp_path / "model.gguf")
    batch = make_batch([(0, random_tokens(40, spec.vocab_size), 0)], 1, blocks_for(40), all_logits=True)
    graph = build_graph(model.spec)
    expected = ReferenceExecutor(graph, model.weights, num_blocks=4).forward(batch)
    found = NativeExecutor(graph, model.weights, num_blocks=4, isa=isa).forward(batch)
    assert np.abs(found - expected).max() < 1e-2 * np.abs(expected).max()
    coarse = NativeExecutor(graph, model.weights, num_blocks=4, isa=isa, activation_bits=8).forward(batch)
    assert np.abs(coarse - expected).max() < 0.15 * np.abs(expected).max()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("format", [TensorFormat.Q4_0, TensorFormat.Q8_0, TensorFormat.N8_0])
def test_the_exact_setting_finds_the_tokens_of_the_oracle_everywhere(
    format: TensorFormat, isa: str, tmp_path: Path
) -> None:
    spec = small_spec()
    write_gguf(tmp_path / "model.gguf", spec, format=format)
    model = open_model(tmp_path / "model.gguf")
    batch = make_batch([(0, random_tokens(64, spec.vocab_size), 0)], 1, blocks_for(64), all_logits=True)
    graph = build_graph(model.spec)
    oracle = ReferenceExecutor(graph, model.weights, num_blocks=4, kv_format=DEFAULT_KV_FORMAT).forward(batch)
    errors = {}
    for bits in (12, 32):
        found = NativeExecutor(graph, model.weights, num_blocks=4, isa=isa, activation_bits=bits).forward(batch)
        errors[bits] = np.abs(found - oracle).max() / np.abs(oracle).max()
        if bits == 32:
            assert (found.argmax(axis=1) == oracle.argmax(axis=1)).all()
    assert errors[32] < 0.05 * errors[12]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("activation_bits", [12, 8])
@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_the_core_rounds_where_the_table_of_casts_says_and_nowhere_else(
    architecture: str, activation_bits: int, isa: str, tmp_path: Path
) -> None:
    spec = small_spec(architecture)
    write_gguf(tmp_path / "model.gguf", spec, format=TensorFormat.Q4_1)
    model = open_model(tmp_path / "model.gguf")
    batch = make_batch([(0, random_tokens(40, spec.vocab_size), 0)], 1, blocks_for(40), all_logits=True)
    graph = build_graph(model.spec)
    cast = cast_inputs(graph, native_policy(activation_bits), quantized_in(model.weights))
    plain, expected = (
        ReferenceExecutor(one, model.weights, num_blocks=4, kv_format=DEFAULT_KV_FORMAT).forward(batch)
        for one in (graph, cast)
    )
    bits = {"activation_bits": activation_bits, "kv_format": DEFAULT_KV_FORMAT}
    found = NativeExecutor(graph, model.weights, num_blocks=4, isa=isa, **bits).forward(batch)
    # What is left is the order of float sums, and roundings that it tips; 12 bits are not so far above that.
    left = {8: 0.3, 12: 0.8}[activation_bits]
    assert np.abs(found - expected).mean() < left * np.abs(found - plain).mean()


def test_every_tensor_is_let_go_after_the_last_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading one maps pages of its neighbours as well."""
    write_gguf(tmp_path / "model.gguf")
    model = open_model(tmp_path / "model.gguf")
    events: list[tuple[str, str]] = []
    for method in ("raw", "dequantize", "release"):
        told = getattr(model.weights, method)

        def tell(name: str, method: str = method, told: Callable[[str], object] = told) -> object:
            events.append((method, name))
            return told(name)

        monkeypatch.setattr(model.weights, method, tell)
    NativeExecutor(build_graph(model.spec), model.weights, num_blocks=4)
    read = {name for method, name in events if method != "release"}
    last_read = max(number for number, (method, _) in enumerate(events) if method != "release")
    assert {name for _, name in events[last_read + 1 :]} == read
    assert "embed.weight" in read and any("norm" in name for name in read)


@pytest.mark.parametrize("activation_bits", [12, 8])
def test_inputs_of_bfloat_weights_are_rounded_where_pairs_are_multiplied_and_eight_bits_are_asked_for(
    activation_bits: int, tmp_path: Path
) -> None:
    write_gguf(tmp_path / "model.gguf", format=TensorFormat.BF16)
    model = open_model(tmp_path / "model.gguf")
    batch = make_batch([(0, random_tokens(40, 320), 0)], 1, blocks_for(40), all_logits=True)
    graph = build_graph(model.spec)
    policy = native_policy(8, has_pairs=True)
    cast = cast_inputs(graph, policy, quantized_in(model.weights), bfloats_in(model.weights))
    plain, rounded = (
        ReferenceExecutor(one, model.weights, num_blocks=4, kv_format=DEFAULT_KV_FORMAT).forward(batch)
        for one in (graph, cast)
    )
    assert np.abs(rounded - plain).max() > 1e-3 * np.abs(plain).max()
    for isa in ISAS:
        executor = NativeExecutor(graph, model.weights, num_blocks=4, isa=isa, activation_bits=activation_bits)
        expected = rounded if activation_bits == 8 and isa == "avx512bf16" else plain
        assert np.abs(executor.forward(batch) - expected).mean() < 0.3 * np.abs(rounded - plain).mean()


@pytest.mark.parametrize("activation_bits", [12, 8])
@pytest.mark.parametrize("format", [TensorFormat.BF16, TensorFormat.F16])
def test_weights_in_sixteen_bits_give_the_same_text_in_any_company(
    format: TensorFormat, activation_bits: int, tmp_path: Path
) -> None:
    write_gguf(tmp_path / "model.gguf", format=format)
    model = open_model(tmp_path / "model.gguf")
    executor = NativeExecutor(
        build_graph(model.spec), model.weights, num_blocks=64, num_threads=2, activation_bits=activation_bits
    )
    prompts = [random_tokens(length, 320, seed=length) for length in (1, 3, 17, 65, 100)]
    assert_alone_as_together(executor, prompts, 8, (1, 3, 64))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_alone_equals_batched_equals_chunked_to_the_bit(architecture: str, isa: str, tmp_path: Path) -> None:
    spec = small_spec(architecture)
    write_gguf(tmp_path / "model.gguf", spec, format=TensorFormat.Q4_1)
    model = open_model(tmp_path / "model.gguf")
    executor = NativeExecutor(build_graph(model.spec), model.weights, num_blocks=200, isa=isa, num_threads=2)
    prompts = [random_tokens(length, spec.vocab_size, seed=length) for length in (1, 3, 17, 64, 65, 100, 130, 31)]
    assert_alone_as_together(executor, prompts, 12, (1, 7, 64, 512))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_row_never_depends_on_its_company(data: st.DataObject) -> None:
    """Any mix of sequences, chunk sizes and threads gives each row the very bits it has alone."""
    spec = tiny_spec("llama")
    lengths = data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=6))
    threads = data.draw(st.integers(1, 3))
    executor = NativeExecutor(build_graph(spec), random_weights(spec), num_blocks=40, num_threads=threads)
    prompts = [random_tokens(length, spec.vocab_size, seed=number) for number, length in enumerate(lengths)]
    shares = [(number, prompt, 0) for number, prompt in enumerate(prompts)]
    together = executor.forward(make_batch(shares, len(prompts), 3, all_logits=True)).copy()
    first = 0
    for prompt in prompts:
        cut = data.draw(st.integers(0, len(prompt) - 1))
        rows = []
        for start, piece in ((0, prompt[:cut]), (cut, prompt[cut:])):
            if piece:
                rows.append(executor.forward(make_batch([(0, piece, start)], 1, 3, all_logits=True)).copy())
        assert np.array_equal(np.concatenate(rows), together[first : first + len(prompt)])
        first += len(prompt)


@pytest.mark.parametrize("kv_format", ["f16", "bf16"])
def test_tables_with_fused_multiply_add_agree_to_the_bit(kv_format: str, tmp_path: Path) -> None:
    fused = [isa for isa in ISAS if isa != "scalar"]
    write_gguf(tmp_path / "model.gguf", format=TensorFormat.Q4_1)
    model = open_model(tmp_path / "model.gguf")
    batch = make_batch([(0, random_tokens(40, 320), 0)], 1, blocks_for(40), all_logits=True)
    graph = build_graph(model.spec)
    logits = [
        NativeExecutor(graph, model.weights, num_blocks=4, isa=isa, kv_format=kv_format).forward(batch) for isa in fused
    ]
    assert all(np.array_equal(logits[0], other) for other in logits[1:])


def test_a_copied_block_holds_what_its_source_held() -> None:
    spec = tiny_spec()
    executor = NativeExecutor(build_graph(spec), random_weights(spec), num_blocks=4)
    prompt = random_tokens(16, spec.vocab_size)
    executor.forward(make_batch([(0, prompt, 0)], 2, 2))
    source, target = make_batch([(0, [1], 0), (1, [1], 0)], 2, 2).block_tables[:, 0]
    executor.copy_blocks([(int(source), int(target))])
    logits = executor.forward(make_batch([(0, [7], 16), (1, [7], 16)], 2, 2))
    assert np.array_equal(logits[0], logits[1])


def test_quantised_weights_have_no_float_copy(tmp_path: Path) -> None:
    """Packed sizes: 4-bit codes and two float16 numbers a group are 5 bits a weight, as in the file."""
    from vivace import _native

    raw = np.zeros(64 * 64 // 32 * 20, dtype=np.uint8)
    assert _native.PackedMatrix("Q4_1", raw, 64, 64, 1, _native.ChunkedMemory()).num_bytes == raw.nbytes


def test_a_step_that_does_not_fit_is_refused() -> None:
    spec = tiny_spec()
    executor = NativeExecutor(build_graph(spec), random_weights(spec), num_blocks=2, max_rows=8)
    for tokens, first in (([spec.vocab_size], 0), ([-1], 0), ([1] * 9, 0), ([1], 32)):
        with pytest.raises(EngineError):
            executor.forward(make_batch([(0, tokens, first)], 1, 2))
    with pytest.raises(ValueError, match="outside the pool"):
        executor.copy_blocks([(0, 2)])


def test_a_step_in_two_halves_gives_the_same_bits_and_takes_one_at_a_time() -> None:
    spec = tiny_spec("llama")
    executor = NativeExecutor(build_graph(spec), random_weights(spec), num_blocks=8, num_threads=2)
    batch = make_batch([(0, random_tokens(70, spec.vocab_size), 0)], 1, blocks_for(70), all_logits=True)
    whole = executor.forward(batch).copy()
    executor.start(batch)
    with pytest.raises(EngineError, match="not finished"):
        executor.start(batch)
    assert np.array_equal(executor.finish(), whole)
    executor.start(batch)  # and what is never finished does not keep the executor from going


def test_settings_that_cannot_work_are_refused() -> None:
    spec = tiny_spec()
    graph, weights = build_graph(spec), random_weights(spec)
    with pytest.raises(ConfigError, match="no kernel table named 'mmx'"):
        NativeExecutor(graph, weights, num_blocks=2, isa="mmx")
    with pytest.raises(ConfigError, match="activation_bits"):
        NativeExecutor(graph, weights, num_blocks=2, activation_bits=16)
    narrow = tiny_spec(head_dim=8)
    with pytest.raises(UnsupportedModelError, match="16 does not divide"):
        NativeExecutor(build_graph(narrow), random_weights(narrow), num_blocks=2)


def test_the_environment_forces_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = tiny_spec()
    for isa in ISAS:
        monkeypatch.setenv("VIVACE_ISA", isa)
        assert NativeExecutor(build_graph(spec), random_weights(spec), num_blocks=2).isa == isa


def test_an_early_exit_writes_the_bits_that_the_model_writes_and_no_others() -> None:
    """Keys and values of its layers are the model's own, so a draft pass leaves nothing to be undone."""
    spec = tiny_spec("qwen3")
    tokens, rest = [5, 9, 2, 7, 1, 3], [(0, [1, 3], 4)]
    plain, model = (NativeExecutor(build_graph(spec), random_weights(spec), num_blocks=2, max_rows=8) for _ in range(2))
    cut = NativeExecutor(cut_after_layer(build_graph(spec), 2), random_weights(spec), num_blocks=2, max_rows=8)
    early = model.early_exit(2, 4)
    expected = plain.forward(make_batch([(0, tokens, 0)], 1, 2, all_logits=True)).copy()
    model.forward(make_batch([(0, tokens[:4], 0)], 1, 2))
    guessed = early.forward(make_batch(rest, 1, 2, all_logits=True)).copy()
    assert np.array_equal(model.forward(make_batch(rest, 1, 2, all_logits=True)), expected[4:])
    assert np.array_equal(cut.forward(make_batch([(0, tokens, 0)], 1, 2, all_logits=True))[4:], guessed)
    for layers in (0, 4):
        with pytest.raises(ConfigError, match="cannot be cut"):
            model.early_exit(layers, 4)
