"""The table of architectures: from a ModelSpec to its op list."""

from collections.abc import Callable

from vivace.graph.architectures import gemma3, llama, qwen2, qwen3
from vivace.graph.graph import Graph
from vivace.types.errors import ConfigError, UnsupportedModelError
from vivace.types.model import ModelSpec

ARCHITECTURES: dict[str, Callable[[ModelSpec], Graph]] = {
    "llama": llama.build,
    "gemma3": gemma3.build,
    "qwen2": qwen2.build,
    "qwen3": qwen3.build,
}


def build_graph(spec: ModelSpec) -> Graph:
    """Write the op list of a model, before any pass.

    Raises:
        UnsupportedModelError: no architecture of that name.
        ConfigError: the spec does not name one attention window a layer.
    """
    build = ARCHITECTURES.get(spec.architecture)
    if build is None:
        raise UnsupportedModelError(
            f"The model's architecture {spec.architecture!r} is not one that vivace runs.",
            f"Use a model of one of: {', '.join(sorted(ARCHITECTURES))}.",
        )
    if len(spec.attention.windows) != spec.num_layers:
        raise ConfigError(f"The model has {spec.num_layers} layers but {len(spec.attention.windows)} window entries.")
    return build(spec)
