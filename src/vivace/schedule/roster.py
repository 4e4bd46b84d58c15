"""Who is in work and in which state: waiting, running, or until its prompt is computed a choice that waits for another.

Owns the groups, the queue and the running sequences; every change of state is a method here. Taking a sequence's blocks
away and setting its computed tokens back to 0 is one act, `_release`, the only place that frees. Decides nothing.
"""

from collections.abc import Callable

from vivace.schedule.blocks import BlockDesk
from vivace.schedule.group import RequestGroup
from vivace.schedule.orders.order import Order
from vivace.schedule.sequence import Sequence, SequenceState
from vivace.schedule.waiting import WaitingQueue


class Roster:
    """The sequences of all requests that have not ended.

    Args:
        blocks: gives and takes their blocks.
        order: hears who comes, starts and leaves.
    """

    def __init__(self, blocks: BlockDesk, order: Order) -> None:
        self._blocks = blocks
        self._order = order
        self.groups: dict[str, RequestGroup] = {}
        self.running: dict[int, Sequence] = {}
        self.waiting = WaitingQueue(order)
        self.num_preemptions = 0

    def join(self, group: RequestGroup) -> None:
        """A request has come: its first choice waits, the others wait for its prompt."""
        self.groups[group.request.request_id] = group
        self.waiting.push(group.live[0])
        for sequence in group.live.values():
            self._order.note_arrived(sequence)

    def start(self, sequence: Sequence) -> None:
        """A sequence that waited has its blocks and runs."""
        self._run(sequence)
        self.waiting.remove(sequence)
        if sequence.num_cached is None:
            sequence.num_cached = sequence.num_computed
            self._order.note_started(sequence, sequence.num_known - sequence.num_computed)

    def fork(self, group: RequestGroup, source: Sequence, may_fork: Callable[[Sequence], bool]) -> None:
        """Start the other choices on the prompt that `source` has computed.

        They share its full blocks and get a copy of the one the prompt ends in, and compute the last prompt token
        again: its logits are what each draws its first token from. Those that find no room wait and compute it all.
        """
        for sequence in group.unforked:
            if not may_fork(sequence):
                self._enqueue(sequence)
                continue
            self._blocks.fork(source, sequence)
            self._run(sequence)
            sequence.num_cached = source.num_cached
            self._order.note_started(sequence, 0)
        group.unforked.clear()

    def preempt(self, sequence: Sequence) -> None:
        """A running sequence gives up its blocks and waits."""
        self.num_preemptions += 1
        self._release(sequence)
        self._enqueue(sequence)

    def drop(self, sequence: Sequence) -> None:
        """Take a sequence out of everything."""
        group = self.groups[sequence.request.request_id]
        if sequence.state is SequenceState.RUNNING:
            self._release(sequence)
        elif sequence.state is SequenceState.WAITING:
            self.waiting.remove(sequence)
        elif sequence in group.unforked:
            group.unforked.remove(sequence)
        sequence.state = SequenceState.ENDED
        self._order.note_left(sequence)
        del group.live[sequence.choice]
        if sequence.choice == 0:
            for orphan in group.unforked:
                self._enqueue(orphan)
            group.unforked.clear()
        if not group.live:
            del self.groups[sequence.request.request_id]

    def drop_all(self, group: RequestGroup) -> None:
        """Take every choice of a request out of everything."""
        group.unforked.clear()
        for sequence in tuple(group.live.values()):
            self.drop(sequence)

    def _run(self, sequence: Sequence) -> None:
        sequence.num_known_at_start = sequence.num_known
        sequence.state = SequenceState.RUNNING
        self.running[sequence.sequence_id] = sequence

    def _enqueue(self, sequence: Sequence) -> None:
        sequence.state = SequenceState.WAITING
        self.waiting.push(sequence)

    def _release(self, sequence: Sequence) -> None:
        """Give back all blocks of a running sequence; nothing of it is computed any more."""
        del self.running[sequence.sequence_id]
        self._blocks.release(sequence)
