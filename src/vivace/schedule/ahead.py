"""The plan of a step before the tokens of the step under way are known: all streams go on by one token.

Right only if nothing happens in between: no token ends an answer, and nobody comes or leaves. Whoever runs it sees to
that. Takes blocks a step earlier than the scheduler would, and never another's.
"""

from vivace.schedule.blocks import BlockDesk
from vivace.schedule.roster import Roster
from vivace.schedule.sequence import Sequence
from vivace.types.step import SequenceShare, StepPlan


def plan_ahead(plan: StepPlan, roster: Roster, blocks: BlockDesk) -> StepPlan | None:
    """The step after the one under way; None where it cannot be known.

    Args:
        plan: the step under way, of which nothing is committed.
        roster: nobody who waits in it can start.
        blocks: where slots for the tokens to come are taken.
    """
    if len(plan.shares) != len(roster.running) or blocks.moves:
        return None
    sequences = [roster.running[share.sequence_id] for share in plan.shares]
    for share, sequence in zip(plan.shares, sequences, strict=True):
        if share.count != 1 or not share.wants_logits or not _goes_on(sequence, roster):
            return None
    if not blocks.make_room_for_next(sequences):
        return None
    return StepPlan(tuple(SequenceShare(share.sequence_id, share.start + 1, 1, True) for share in plan.shares))


def _goes_on(sequence: Sequence, roster: Roster) -> bool:
    """Whether a stream is one after its next token, whatever token that is, unless it stops there."""
    if sequence.request.n > 1 and roster.groups[sequence.request.request_id].unforked:
        return False
    return sequence.num_known + 1 < sequence.max_known and sequence.retention is None
