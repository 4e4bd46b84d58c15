"""Blocks that left the pool come back, say the same, and a broken step leaves no trust in what it did not write."""

from pathlib import Path

import numpy as np
import pytest

from engine.fake_executor import LOCAL_WINDOW, FakeExecutor
from engine.harness import make_request, run_to_end, small_config, tokens_alone, tokens_of
from factories.tiny_models import random_weights, tiny_spec
from vivace.cache.disk_tier import DiskTier
from vivace.cache.tiers import BlockTiers, LocalMemory, name_of
from vivace.engine.core import Engine
from vivace.execute.native import NativeExecutor
from vivace.execute.reference import ReferenceExecutor
from vivace.graph.build import build_graph
from vivace.types.errors import EngineError
from vivace.types.request import GenerationRequest
from vivace.types.step import Executor, ForwardBatch, LocalLayers, StepPlan

BYTES = FakeExecutor().bytes_per_block


def fake_engine(num_blocks: int, host_blocks: int = 100, disk: DiskTier | None = None, **executor: object) -> Engine:
    memory = FakeExecutor(num_blocks, **executor)  # type: ignore[arg-type]
    return Engine(memory, small_config(), tiers=BlockTiers(memory, host_blocks * BYTES, disk, clock=lambda: 0))


def conversation(name: str, start: int, length: int = 70) -> GenerationRequest:
    return make_request(name, [start, *(position % 29 for position in range(length))], 6)


def ask(engine: Engine, request: GenerationRequest) -> list[int]:
    engine.add(request)
    return tokens_of(run_to_end(engine), request.request_id)


def test_a_conversation_that_was_pushed_out_comes_back_without_being_read_again() -> None:
    engine = fake_engine(num_blocks=5)
    first = ask(engine, conversation("a", 1))
    ask(engine, conversation("b", 2))  # needs all five blocks
    before = engine.stats().num_computed_tokens
    assert ask(engine, conversation("c", 1)) == first == tokens_alone(conversation("a", 1))[0]
    stats = engine.stats()
    assert stats.tiers is not None and stats.tiers.num_from_host == 4
    assert stats.num_computed_tokens - before == 71 - 64 + 6 - 1
    assert stats.num_cached_tokens == 64 and stats.tiers.hit_rate == 4 / 12


def windowed_engine(num_blocks: int, num_local: int, tiers: tuple[int, DiskTier | None]) -> Engine:
    """Some layers have blocks of their own."""
    memory = FakeExecutor(num_blocks, num_local_blocks=num_local)
    host_blocks, disk = tiers
    local = LocalMemory(memory)
    below = BlockTiers(memory, host_blocks * BYTES, disk, clock=lambda: 0, local=local)
    return Engine(memory, small_config(max_chunk_tokens=16), tiers=below, local=memory.local_layers)


def test_what_local_layers_see_comes_back_with_the_rest_and_no_more_of_it() -> None:
    engine = windowed_engine(6, 7, (100, None))
    alone = tokens_alone(conversation("a", 1), num_local_blocks=64)[0]
    assert ask(engine, conversation("a", 1)) == alone
    for number in (2, 3):
        ask(engine, conversation("b", number))
    before = engine.stats()
    assert before.tiers is not None
    assert ask(engine, conversation("c", 1)) == alone
    stats = engine.stats()
    assert stats.tiers is not None and stats.num_cached_tokens - before.num_cached_tokens == 64
    windowed = -(-LOCAL_WINDOW // 16)
    assert stats.tiers.num_from_host - before.tiers.num_from_host == 4 + windowed


def test_a_prefix_of_which_local_layers_have_lost_their_window_is_computed_again() -> None:
    engine = windowed_engine(6, 7, (100, None))
    alone = tokens_alone(conversation("a", 1), num_local_blocks=64)[0]
    ask(engine, conversation("a", 1))
    keys = engine.scheduler.blocks.keys_of(conversation("a", 1))
    for number in (2, 3):
        ask(engine, conversation("b", number))
    assert engine.tiers is not None
    for key in keys:
        engine.tiers.host.discard(name_of(key, 1))
    before = engine.stats().num_cached_tokens
    assert ask(engine, conversation("c", 1)) == alone
    assert engine.stats().num_cached_tokens == before


def test_a_saved_prefix_with_local_layers_goes_on_after_a_restart(tmp_path: Path) -> None:
    def disk() -> DiskTier:
        return DiskTier(tmp_path, b"f" * 16, (BYTES,), 1000 * BYTES)

    first = windowed_engine(20, 20, (0, disk()))
    ask(first, conversation("a", 1, length=150))
    names, num_blocks = first.keep_on_disk(conversation("a", 1, length=150))
    assert num_blocks == 9 and 9 < len(names) < 18, "of local layers the last ones alone"
    first.close()
    second = windowed_engine(20, 20, (0, disk()))
    longer = conversation("c", 1, length=170)
    assert second.preload(conversation("a", 1, length=150)) == 0, "nothing is in memory yet"
    assert ask(second, longer) == tokens_alone(longer, num_local_blocks=64)[0]
    assert second.stats().num_cached_tokens == 144
    second.close()


def test_blocks_come_back_from_files_after_a_restart(tmp_path: Path) -> None:
    disk = DiskTier(tmp_path, b"f" * 16, (BYTES,), 100 * 1000)
    engine = fake_engine(5, host_blocks=0, disk=disk)
    ask(engine, conversation("a", 1))
    ask(engine, conversation("b", 2))
    engine.close()
    again = fake_engine(5, host_blocks=9, disk=DiskTier(tmp_path, b"f" * 16, (BYTES,), 100 * 1000))
    assert ask(again, conversation("a", 1)) == tokens_alone(conversation("a", 1))[0]
    stats = again.stats().tiers
    assert stats is not None and stats.num_from_disk == 4
    again.close()


def test_a_damaged_file_costs_a_prefill_and_changes_nothing(tmp_path: Path) -> None:
    disk = DiskTier(tmp_path, b"f" * 16, (BYTES,), 100 * 1000)
    engine = fake_engine(5, host_blocks=0, disk=disk)
    ask(engine, conversation("a", 1))
    ask(engine, conversation("b", 2))
    disk.flush()
    for path in disk.folder.iterdir():
        path.write_bytes(path.read_bytes()[:-1] + b"!")
    assert ask(engine, conversation("c", 1)) == tokens_alone(conversation("a", 1))[0]
    stats = engine.stats().tiers
    assert stats is not None and stats.num_from_disk == 0 and stats.num_wanted == 12
    engine.close()


def test_a_tenants_blocks_come_back_to_that_tenant_alone() -> None:
    engine = fake_engine(num_blocks=5)
    ask(engine, conversation("a", 1))
    ask(engine, conversation("b", 2))
    foreign = make_request("c", conversation("a", 1).prompt_ids, 6, **level(tenant="eve"))
    ask(engine, foreign)
    stats = engine.stats().tiers
    assert stats is not None and stats.num_from_host == 0


def level(**fields: str) -> dict[str, object]:
    from vivace.types.request import ServiceLevel

    return {"service_level": ServiceLevel(**fields)}  # type: ignore[arg-type]


def test_a_step_that_breaks_before_blocks_were_filled_leaves_none_to_be_found() -> None:
    breaks: list[bool] = []

    def maybe_break(batch: ForwardBatch) -> None:
        if breaks:
            raise EngineError("broke")

    engine = fake_engine(5, before_forward=maybe_break)
    alone = ask(engine, conversation("a", 1))
    ask(engine, conversation("b", 2))
    executor = engine._executor
    write = executor.write_block
    executor.write_block = lambda block, content: None  # type: ignore[method-assign]
    breaks.append(True)
    engine.add(conversation("c", 1))
    run_to_end(engine)
    breaks.clear()
    executor.write_block = write  # type: ignore[method-assign]
    assert ask(engine, conversation("d", 1)) == alone


def test_a_prefix_is_preloaded_before_it_is_asked_for() -> None:
    engine = fake_engine(num_blocks=20)
    ask(engine, conversation("a", 1))
    for number in range(2, 10):
        ask(engine, conversation("b", number))
    request = conversation("c", 1)
    assert engine.preload(request) == 4
    engine.scheduler.check()
    assert engine.preload(request) == 4, "they are there"
    assert ask(engine, request) == tokens_alone(request)[0]
    stats = engine.stats().tiers
    assert stats is not None and stats.preload_hit_rate == 1 and stats.num_from_host == 0


def test_blocks_that_are_cheaper_to_compute_are_not_kept() -> None:
    engine = fake_engine(num_blocks=5)
    assert engine.tiers is not None
    engine.tiers._byte_s.update(spill=10.0, host=10.0)
    for rows in range(1, 17):
        engine.scheduler.note_step(StepPlan(()), 1.0 + 0.1 * rows)
        engine.scheduler.estimates.steps.observe(rows, rows * 10, 1.0 + 0.1 * rows)
    ask(engine, conversation("a", 1))
    ask(engine, conversation("b", 2))
    stats = engine.stats().tiers
    assert stats is not None and stats.num_spilled == 0 and stats.num_not_spilled > 0 and stats.spill_rate == 0


@pytest.mark.parametrize("kv_format", ["f16", "int8", "int4"])
@pytest.mark.parametrize("kind", [NativeExecutor, ReferenceExecutor])
def test_a_block_read_and_written_elsewhere_is_the_same_block(kind: type, kv_format: str) -> None:
    spec = tiny_spec("llama", head_dim=32)
    executor: Executor = kind(build_graph(spec), random_weights(spec), num_blocks=6, kv_format=kv_format)
    engine = Engine(executor, small_config())
    ask(engine, make_request("a", [position % 97 for position in range(40)], 4))
    first, second = executor.read_block(0), executor.read_block(1)
    assert first.dtype == np.uint8 and first.shape == (executor.bytes_per_block,)
    assert (first != second).any() and first.any()
    executor.write_block(5, first)
    assert (executor.read_block(5) == first).all() and (executor.read_block(1) == second).all()


@pytest.mark.parametrize("kind", [NativeExecutor, ReferenceExecutor])
def test_a_block_of_local_layers_read_and_written_elsewhere_is_the_same_block(kind: type) -> None:
    spec = tiny_spec("gemma3", head_dim=32)
    executor: Executor = kind(build_graph(spec), random_weights(spec), num_blocks=6, num_local_blocks=5)
    engine = Engine(executor, small_config(), local=LocalLayers(5, spec.attention.local_window))
    ask(engine, make_request("a", [position % 97 for position in range(40)], 4))
    first, main = executor.read_local_block(0), executor.read_block(4)
    assert first.shape == (executor.bytes_per_local_block,) and first.any()
    executor.write_local_block(4, first)
    assert (executor.read_local_block(4) == first).all() and (executor.read_block(4) == main).all()


def test_the_core_refuses_a_content_of_another_size() -> None:
    spec = tiny_spec("llama", head_dim=32)
    executor = NativeExecutor(build_graph(spec), random_weights(spec), num_blocks=2)
    for block, size in (
        (0, executor.bytes_per_block - 1),
        (2, executor.bytes_per_block),
        (-1, executor.bytes_per_block),
    ):
        with pytest.raises(EngineError, match="refused"):
            executor.write_block(block, np.zeros(size, np.uint8))


def test_a_chat_that_came_back_before_is_brought_back_while_the_engine_rests() -> None:
    engine = fake_engine(num_blocks=40)
    ask(engine, conversation("a", 1))
    ask(engine, conversation("b", 1, length=100))
    for number in range(2, 14):
        ask(engine, conversation("c", number))
    assert engine.rest() == 6
    assert engine.rest() == 0
    engine.scheduler.check()
    before = engine.stats().num_cached_tokens
    assert ask(engine, conversation("d", 1, length=130)) == tokens_alone(conversation("d", 1, length=130))[0]
    assert engine.stats().num_cached_tokens - before == 96
