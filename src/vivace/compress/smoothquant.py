"""SmoothQuant: outliers of activations are moved into the weights, so that both fit eight bits.

Xiao et al., "SmoothQuant" (2023), equation 4: s_j = max|X_j|^a / max|W_j|^(1 - a), with a = 0.5. Folded at the same
places as AWQ's scales (`awq.py`).
"""

from collections.abc import Sequence

import numpy as np

from vivace.compress.awq import FoldSite
from vivace.compress.schemes import Floats, QuantScheme
from vivace.compress.statistics import InputStatistics

MIGRATION = 0.5


def smoothing_scales(
    site: FoldSite, matrices: Sequence[Floats], _schemes: Sequence[QuantScheme], statistics: InputStatistics
) -> Floats | None:
    """The factors that weights' columns are multiplied by, float32 (width,); None when the site saw no input.

    Args:
        site: where they will be folded.
        matrices: of the site's linears, float32 (out, width) each.
        statistics: with the largest input of each channel.
    """
    if not statistics.largest.any():
        return None
    inputs = site.share(np.maximum(statistics.largest, 1e-5))
    columns = np.max([np.abs(matrix).max(axis=0) for matrix in matrices], axis=0)
    weights = site.share(np.maximum(columns, 1e-5))
    shared = (inputs**MIGRATION / weights ** (1 - MIGRATION)).astype(np.float32)
    shared /= np.sqrt(shared.max() * shared.min())
    return site.spread(np.clip(shared, 1e-3, 1e3))
