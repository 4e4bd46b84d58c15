"""Quality of nested weights by level and band of positions (chapter 18.2.3): which rows pay for what they do not read.

Every level is read on its own, and the chapter's bands as they would run, where a row attends to keys and values that
rows of other levels wrote.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vivace.compress.evaluate import TokenColumns, read_columns, summarise
from vivace.compress.progress import Report as Progress
from vivace.engine.precision import CHAPTER_BANDS, PrecisionPolicy, parse_precision
from vivace.execute.score import Tokens
from vivace.types.errors import ConfigError
from vivace.types.precision import LEVEL_NAMES
from vivace.types.step import ForwardBatch, ForwardPass

LEVEL_POLICIES = {**{name: f"bands:0={name}" for name in reversed(LEVEL_NAMES)}, "chapter": "chapter"}
"""What rows read, by name: words of `--precision`."""


@dataclass(frozen=True, slots=True)
class Levelled:
    """An executor whose rows read what a policy says; only what scoring calls."""

    executor: ForwardPass
    policy: PrecisionPolicy

    @property
    def num_blocks(self) -> int:
        """As the executor's."""
        return self.executor.num_blocks

    @property
    def max_rows(self) -> int:
        """As the executor's."""
        return self.executor.max_rows

    def forward(self, batch: ForwardBatch) -> NDArray[np.float32]:
        """As the executor's, at the policy's levels."""
        return self.executor.forward(replace(batch, row_levels=self.policy.levels(batch.positions, 1)))


def levelled(executor: ForwardPass, precision: str) -> ForwardPass:
    """The executor itself when `precision` is "off", else one whose rows read what it says.

    Raises:
        ConfigError: `precision` has words that are none.
    """
    policy = parse_precision(precision)
    return executor if policy is None else Levelled(executor, policy)


@dataclass(frozen=True, slots=True)
class BandFigures:
    """The rows of one policy at positions `begin` up to `end` of every window, beside the reference at the same ones.

    Perplexity is of the tokens that these rows foretell; `*_error` is one standard error (of the ratio: paired).
    """

    rows: str
    begin: int
    end: int
    num_tokens: int
    ppl: float
    ppl_ratio: float
    ppl_ratio_error: float
    kld: float
    kld_error: float
    same_top: float


def read_levels(
    executor: ForwardPass, reference: ForwardPass, windows: Sequence[Tokens], progress: Progress
) -> tuple[BandFigures, ...]:
    """Every policy of LEVEL_POLICIES over all positions of the windows, by the chapter's bands and together.

    Args:
        executor: of a model with nested weights.
        reference: what it is held against; reads all it has.
        windows: of one length, two tokens at least.
        progress: told how far it is.

    Raises:
        ConfigError: windows of several lengths.
    """
    if len({len(window) for window in windows}) != 1:
        raise ConfigError("Bands of positions need windows of one length.", "Give a longer text.")
    positions = len(windows[0]) - 1
    found: list[BandFigures] = []
    for name, words in LEVEL_POLICIES.items():
        columns = read_columns(levelled(executor, words), windows, reference, progress, first=0)
        at = np.tile(np.arange(positions), len(windows))
        found += [
            _figures((name, begin, end), columns, (begin <= at) & (at < end)) for begin, end in bands_of(positions)
        ]
    return tuple(found)


def bands_of(positions: int) -> list[tuple[int, int]]:
    """The chapter's bands as far as there are positions, and all of them when they are more than one."""
    starts = [start for start, _ in CHAPTER_BANDS if start < positions]
    bands = list(zip(starts, [*starts[1:], positions], strict=True))
    return bands if len(bands) == 1 else [*bands, (0, positions)]


def _figures(place: tuple[str, int, int], columns: TokenColumns, part: NDArray[np.bool_]) -> BandFigures:
    few = summarise(columns.only(part), 0)
    assert few.ppl_ratio is not None and few.ppl_ratio_error is not None
    assert few.kld is not None and few.kld_error is not None and few.same_top is not None
    figures = (few.ppl, few.ppl_ratio, few.ppl_ratio_error, few.kld, few.kld_error, few.same_top)
    return BandFigures(*place, few.num_tokens, *figures)
