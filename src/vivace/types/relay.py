"""One step after another without Python in between: what an executor needs that does so."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from vivace.types.drawing import DrawNumbers
from vivace.types.step import ForwardBatch


@runtime_checkable
class RelayExecutor(Protocol):
    """A `PatientExecutor` and `Drawer` that starts a prepared step by itself when the one under way is done."""

    def prepare(self, batch: ForwardBatch) -> None:
        """Say what would follow the step under way; forgets an earlier `hold`.

        Args:
            batch: one row for each sequence of that step, in its order, and the logits of all; nothing is observed.
                Its tokens are not known yet, whatever `token_ids` holds. Nobody changes its arrays before its `finish`.

        Raises:
            EngineError: the batch does not fit this executor.
        """
        ...

    def relay(
        self, rows: Sequence[DrawNumbers], histories: Sequence[NDArray[np.int32]], stops: Sequence[NDArray[np.int32]]
    ) -> tuple[list[int], NDArray[np.float32] | None]:
        """Finish the step under way, draw a token from each of its rows as `Drawer.draw` does, and begin with the one
        that was prepared, unless a token ends its sequence, could not be drawn, or `hold` was called.

        Args:
            rows: how each row is drawn.
            histories: all known tokens of each row.
            stops: tokens that end each sequence, int32 (s,).

        Returns:
            The tokens, and None where the prepared step is under way; else the logits they were drawn from.
        """
        ...

    def hold(self) -> None:
        """Let no prepared step follow by itself until the next `prepare`; may be called from any thread."""
        ...
