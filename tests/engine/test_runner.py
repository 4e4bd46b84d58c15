"""A plan becomes the arrays an executor reads, and nothing of a sequence changes on the way."""

import numpy as np

from engine.fake_executor import FakeExecutor
from engine.harness import make_request
from vivace.cache.block_table import BlockTable, TableBoard
from vivace.engine.runner import StepRunner, build_batch
from vivace.sample.sampler import Sampler
from vivace.sample.settings import DrawSettings
from vivace.schedule.sequence import Sequence
from vivace.types.step import SequenceShare, StepPlan

BOARD = TableBoard()


def make_sequence(sequence_id: int, num_tokens: int, blocks: list[int]) -> Sequence:
    request = make_request(f"r{sequence_id}", prompt=range(num_tokens), max_tokens=5)
    sequence = Sequence(
        sequence_id, request, (sequence_id, 0), DrawSettings(request.sampling, 0), frozenset(), num_tokens + 5
    )
    sequence.table = BlockTable(BOARD)
    sequence.table.extend(blocks)
    return sequence


def test_rows_of_all_shares_follow_each_other_with_their_tables() -> None:
    sequences = {7: make_sequence(7, 40, [5, 3, 9]), 2: make_sequence(2, 4, [1])}
    plan = StepPlan((SequenceShare(2, 3, 1, True), SequenceShare(7, 30, 5, False), SequenceShare(7, 35, 5, True)))
    batch = build_batch(plan, sequences)
    assert batch.token_ids.tolist() == [3, *range(30, 40)]
    assert batch.positions.tolist() == [3, *range(30, 40)]
    assert batch.sequence_starts.tolist() == [0, 1, 6, 11]
    assert batch.logit_rows.tolist() == [0, 10]
    assert batch.block_tables.tolist() == [[1, 0, 0], [5, 3, 9], [5, 3, 9]]
    arrays = (batch.token_ids, batch.positions, batch.sequence_starts, batch.block_tables, batch.logit_rows)
    assert {array.dtype for array in arrays} == {np.dtype(np.int32)}
    assert all(array.flags.c_contiguous for array in arrays)


def test_one_sequence_needs_no_padding_and_no_logits_is_an_empty_array() -> None:
    batch = build_batch(StepPlan((SequenceShare(1, 0, 20, False),)), {1: make_sequence(1, 40, [4, 2, 6])})
    assert batch.block_tables.tolist() == [[4, 2, 6]]
    assert batch.logit_rows.shape == (0,)
    assert batch.logit_rows.dtype == np.int32


def test_one_draw_comes_back_for_each_share_that_wants_logits() -> None:
    sequences = {1: make_sequence(1, 5, [1]), 2: make_sequence(2, 6, [2])}
    runner = StepRunner(FakeExecutor(), Sampler())
    result = runner.run(StepPlan((SequenceShare(1, 0, 3, False), SequenceShare(2, 0, 6, True))), sequences)
    assert len(result.draws) == 1
    assert (sequences[2].num_known, sequences[2].num_computed) == (6, 0)
    assert runner.run(StepPlan((SequenceShare(1, 3, 1, False),)), sequences).draws == ()


def test_rows_of_drafts_follow_the_known_tokens_and_all_give_logits() -> None:
    sequences = {1: make_sequence(1, 5, [1]), 2: make_sequence(2, 6, [2])}
    plan = StepPlan((SequenceShare(1, 4, 3, True, drafts=(30, 31)), SequenceShare(2, 5, 1, True)))
    batch = build_batch(plan, sequences)
    assert batch.token_ids.tolist() == [4, 30, 31, 5]
    assert batch.positions.tolist() == [4, 5, 6, 5]
    assert batch.logit_rows.tolist() == [0, 1, 2, 3]
    assert batch.sequence_starts.tolist() == [0, 3, 4]


def test_a_share_has_a_draw_more_for_each_draft_that_stood() -> None:
    def draws(drafts: tuple[int, ...]) -> list[int]:
        sequences = {1: make_sequence(1, 5, [1]), 2: make_sequence(2, 6, [2])}
        runner = StepRunner(FakeExecutor(), Sampler())
        runner.run(StepPlan((SequenceShare(1, 0, 4, False), SequenceShare(2, 0, 5, False))), sequences)
        shares = (SequenceShare(1, 4, 1 + len(drafts), True, drafts=drafts), SequenceShare(2, 5, 1, True))
        result = runner.run(StepPlan(shares), sequences)
        assert sequences[1].num_known == 5
        return [draw.token_id for draw in result.draws]

    first, other = draws(())
    wrong = (first + 1) % 32
    assert draws((wrong, 3)) == [first, other]
    second = draws((first,))[1]
    assert draws((first,)) == [first, second, other]
    assert draws((first, second))[:2] == [first, second] and len(draws((first, second))) == 4
    assert draws((first, (second + 1) % 32)) == [first, second, other]
