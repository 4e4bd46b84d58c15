"""Drafts beside streams: who has room for how many, and which draws belong to which share."""

from collections.abc import Iterator
from collections.abc import Sequence as Row

from vivace.sample.randomness import redraw_seed
from vivace.schedule.blocks import BlockDesk
from vivace.schedule.sequence import Sequence
from vivace.schedule.step_cost import num_pairs
from vivace.types.draft import DecodeStep, DraftPlace, Speculator
from vivace.types.step import Draw, SequenceShare, StepPlan


class DraftDesk:
    """Asks a speculator for drafts that fit.

    Args:
        speculator: guesses the next tokens of streams; None: nobody does.
        blocks: where slots for drafts come from.
    """

    def __init__(self, speculator: Speculator | None, blocks: BlockDesk) -> None:
        self._speculator = speculator
        self._blocks = blocks
        self.is_paused = False
        self.most_new_tokens = 1 if speculator is None else 1 + speculator.max_drafts

    def may_draft(self, num_streams: int) -> bool:
        """Whether so many streams may get drafts, so that what a step computes depends on the tokens before it."""
        return self._speculator is not None and not self.is_paused and not self._speculator.refuses(num_streams)

    def drafts_for(self, streams: Row[Sequence], num_rows: int, budget: int) -> Row[tuple[int, ...]]:
        """Drafts for each stream of a step that has so many rows without them, at most `budget` in all."""
        if self._speculator is None or self.is_paused or not streams or self._speculator.rests(len(streams)):
            return [()] * len(streams)
        return self._speculator.propose([self._place(sequence) for sequence in streams], num_rows, budget)

    def _place(self, sequence: Sequence) -> DraftPlace:
        request, num_drafts = sequence.request, self._make_room(sequence)
        is_plain = request.kv_policy is None and not sequence.table.num_removed  # as an early exit would see it
        return DraftPlace(
            sequence.sequence_id,
            sequence.tokens,
            sequence.num_prompt,
            num_drafts,
            request.service_level.tenant,
            (request.request_id, sequence.choice),
            sequence.table.entries if is_plain else None,
            request.sampling,
            redraw_seed(sequence.settings.seed, sequence.settings.attempt),
            sequence.settings.grammar,
        )

    def _make_room(self, sequence: Sequence) -> int:
        """How many drafts a stream can have; takes blocks for them if there are some, never those of another."""
        if sequence.num_generated == 0:  # the other choices of its request have not started yet
            return 0
        most = min(sequence.max_known - 1, sequence.next_decision) - sequence.num_known
        return self._blocks.make_room(sequence, min(self.most_new_tokens - 1, most))


def is_decode(plan: StepPlan) -> bool:
    """Whether a step has streams and their drafts alone, and no rows of prompts."""
    return all(share.wants_logits and share.count == 1 + len(share.drafts) for share in plan.shares)


def decode_step(plan: StepPlan, num_tokens: int, elapsed_ms: float) -> DecodeStep:
    """What a speculator is told of a step without prompt rows."""
    return DecodeStep(plan.num_tokens, len(plan.shares), num_pairs(plan.shares), num_tokens, elapsed_ms)


def draws_of(share: SequenceShare, draws: Iterator[Draw]) -> Row[Draw]:
    """Take the draws of a share: one if it wanted logits, and one more for each draft that stood."""
    if not share.wants_logits:
        return ()
    if not share.drafts:
        return (next(draws),)
    mine = [next(draws)]
    for draft in share.drafts:
        if mine[-1].token_id != draft:
            break
        mine.append(next(draws))
    return mine
