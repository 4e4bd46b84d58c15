"""Rows of logits under grammars: what may not be said cannot be drawn."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vivace.sample.settings import DrawRow
from vivace.types.errors import EngineError, RequestError
from vivace.types.step import Draw


def within_grammar(logits: NDArray[np.float32], rows: Sequence[DrawRow]) -> tuple[NDArray[np.float32], dict[int, Draw]]:
    """Logits with -inf for each token that the grammar of its row refuses.

    Args:
        logits: float32 (L, vocab); read only.
        rows: L settings with histories.

    Returns:
        A changed copy, and by row the draws of those in which a grammar leaves nothing to draw.
    """
    masked = logits.copy()
    failed: dict[int, Draw] = {}
    for index, row in enumerate(rows):
        grammar = row.settings.grammar
        if grammar is None or not np.isfinite(logits[index].max()):
            continue
        try:
            masked[index, ~grammar.allowed(row.tokens[row.settings.num_prompt :])] = -np.inf
            if not np.isfinite(masked[index].max()):
                raise EngineError("The grammar of the answer allows no token that may be said here.")
        except (EngineError, RequestError) as error:
            masked[index] = logits[index]
            failed[index] = Draw(-1, error=error)
    return masked, failed
