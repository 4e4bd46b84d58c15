"""AWQ: input channels that matter are scaled up before rounding, and their producers scaled down to match.

Lin et al., "AWQ: activation-aware weight quantization" (2024): s = E[x^2]^(alpha / 2), with alpha found by search on
the calibration inputs. The scales are folded into what writes the channel (a norm's weight, or rows of the up and
value projections), so that no op is added and the model in floats stays the same.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from vivace.compress.arrays import like, namespace
from vivace.compress.quantizers import quantize_matrix
from vivace.compress.scales import fit_scales
from vivace.compress.schemes import Floats, QuantScheme
from vivace.compress.statistics import InputStatistics
from vivace.graph.access import buffers_read, buffers_written
from vivace.graph.graph import Graph
from vivace.graph.ops import Attention, GatedActivation, Linear, Op, RmsNorm

_ALPHAS = np.linspace(0.0, 0.8, 9)


@dataclass(frozen=True, slots=True)
class FoldSite:
    """Linears that read one buffer, and the weight that its channels' scales can be folded into.

    Attributes:
        x: the buffer.
        weights: of the linears that read it.
        into: a norm's weight (n,), or a projection's (n, in) whose rows are scaled, with its bias if it has one.
        bias: that bias.
        channels_of: of attention, (kv heads, query heads a kv head, head size): scales are shared by the query heads.
    """

    x: str
    weights: tuple[str, ...]
    into: str
    bias: str | None = None
    channels_of: tuple[int, int, int] | None = None

    def share(self, values: Floats) -> Floats:
        """One value for each channel of `into`: the mean over the query heads that share it."""
        if self.channels_of is None:
            return values
        shared: Floats = values.reshape(self.channels_of).mean(axis=1).reshape(-1)
        return shared

    def spread(self, shared: Floats) -> Floats:
        """One value for each channel of the buffer."""
        if self.channels_of is None:
            return shared
        kv_heads, group, size = self.channels_of
        return np.repeat(shared.reshape(kv_heads, 1, size), group, axis=1).reshape(-1)


@dataclass(frozen=True, slots=True)
class FoldedScales:
    """What folds have multiplied columns of matrices by, and divided rows by, by the names of the matrices."""

    columns: dict[str, Floats] = field(default_factory=dict)
    rows: dict[str, Floats] = field(default_factory=dict)

    def add(self, site: FoldSite, scales: Floats) -> None:
        """Count a fold at a site."""
        for name in site.weights:
            self.columns[name] = self.columns.get(name, np.float32(1)) * scales
        self.rows[site.into] = self.rows.get(site.into, np.float32(1)) * site.share(scales)

    def taken_off(self, name: str, matrix: Floats) -> Floats:
        """A matrix as it would stand in a model that was not folded."""
        unscaled = matrix / self.columns[name] if name in self.columns else matrix
        result: Floats = unscaled * self.rows[name][:, None] if name in self.rows else unscaled
        return result


def fold_sites(segment: Sequence[Op], graph: Graph) -> list[FoldSite]:
    """The buffers of a segment whose channels can be scaled: read by linears only, written by an op that can fold."""
    producers = {name: op for op in segment for name in buffers_written(op)}
    sites = []
    for x in dict.fromkeys(op.x for op in segment if isinstance(op, Linear)):
        readers = [op for op in graph.ops if x in buffers_read(op)]
        linears = tuple(op.weight for op in readers if isinstance(op, Linear))
        if len(linears) < len(readers) or any(not name.startswith("layers.") for name in linears):
            continue
        site = _site(x, linears, producers)
        if site is not None:
            sites.append(site)
    return sites


def _site(x: str, weights: tuple[str, ...], producers: dict[str, Op]) -> FoldSite | None:
    match producers.get(x):
        case RmsNorm(num_groups=1) as norm:
            return FoldSite(x, weights, norm.weight)
        case GatedActivation(up=up):
            linear = producers.get(up)
            return FoldSite(x, weights, linear.weight, linear.bias) if isinstance(linear, Linear) else None
        case Attention() as attention:
            linear = producers.get(attention.v)
            heads = (attention.num_kv_heads, attention.num_heads // attention.num_kv_heads, attention.head_dim)
            return FoldSite(x, weights, linear.weight, linear.bias, heads) if isinstance(linear, Linear) else None
        case _:
            return None


def search_scales(
    site: FoldSite, matrices: Sequence[Floats], schemes: Sequence[QuantScheme], statistics: InputStatistics
) -> Floats | None:
    """The channel scales of a site that round best, float32 (width,); None when no scaling beats none.

    Args:
        site: where they will be folded.
        matrices: of the site's linears, in order, of the kind of the Gram matrix.
        schemes: theirs.
        statistics: with the Gram matrix of the site's inputs.

    The error of alpha is the squared output error on the calibration inputs, tr(D G D^T) for D the change of weights.
    """
    if statistics.gram is None:
        return None
    size = np.sqrt(site.share(statistics.importance))
    best, least = None, np.inf
    for alpha in _ALPHAS:
        shared = np.maximum(size, 1e-8).astype(np.float32) ** np.float32(alpha)
        shared /= np.sqrt(shared.max() * shared.min())
        scales = site.spread(shared)
        error = sum(
            _output_error(matrix, scheme.coarsest, like(scales, matrix), statistics.gram)
            for matrix, scheme in zip(matrices, schemes, strict=True)
        )
        if error < least:
            best, least = (scales if alpha > 0 else None), error
    return best


def _output_error(matrix: Floats, scheme: QuantScheme, scales: Floats, gram: Floats) -> float:
    scaled = matrix * scales
    change = quantize_matrix(scaled, scheme, fit_scales(scaled, scheme, "minmax")).dequantize() / scales - matrix
    product = (change @ gram).reshape(-1)
    return float(namespace(product).dot(product, change.reshape(-1)))


def fold(site: FoldSite, scales: Floats, read: Callable[[str], Floats], write: Callable[[str, Floats], None]) -> None:
    """Scale the linears' columns up and the producer down; the model in floats computes what it did.

    Args:
        site: where.
        scales: float32 (width,), as `search_scales` gives them.
        read: a weight as it is now.
        write: puts a weight in its place.
    """
    for name in site.weights:
        write(name, read(name) * scales)
    shared = site.share(scales)
    into = read(site.into)
    write(site.into, into / shared if into.ndim == 1 else into / shared[:, None])
    if site.bias is not None:
        write(site.bias, read(site.bias) / shared)
