"""Sensitivity by layer as a picture: one line a kind of part, the parts that collapse marked."""

from collections.abc import Sequence
from pathlib import Path

from vivace.compress.sensitivity import PartSensitivity
from vivace.types.errors import ConfigError


def plot_sensitivity(parts: Sequence[PartSensitivity], path: Path) -> None:
    """Write a PNG of the loss of every part in the lowest format, on a logarithmic axis over the layers.

    Raises:
        ConfigError: matplotlib is not there, or the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("A plot needs matplotlib.", "pip install 'vivace[compress]'") from None
    kinds: dict[str, list[tuple[int, float]]] = {}
    for part in parts:
        if part.name.startswith("layers."):
            _, layer, kind = part.name.split(".", 2)
            kinds.setdefault(kind, []).append((int(layer), max(part.options[0].loss, 1e-7)))
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.add_subplot()
    ends: dict[str, list[float]] = {}
    for kind, points in kinds.items():
        axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=kind.replace(".", " "))
    for part in parts:
        if not part.name.startswith("layers."):
            ends.setdefault(part.name.split(".")[0], []).append(part.options[0].loss)
        elif part.collapses:
            place = int(part.name.split(".")[1])
            axes.annotate("collapses", (place, part.options[0].loss), textcoords="offset points", xytext=(6, 4))
    for name, losses in ends.items():  # of an embedding in bands: all of them together
        label = name if len(losses) == 1 else f"{name}, {len(losses)} bands"
        axes.axhline(max(sum(losses), 1e-7), linestyle="--", linewidth=1, label=label, color="grey")
    axes.set_yscale("log")
    axes.set_xlabel("layer")
    axes.set_ylabel(f"KL divergence in {parts[0].options[0].label}, nats")
    axes.legend(fontsize=8, ncols=2)
    try:
        figure.savefig(path, dpi=110, format="png")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}.", "Check the path.") from None
