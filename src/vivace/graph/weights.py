"""Which weights a model needs, in which shapes, and whether a file has them."""

from vivace.graph.access import Shape, weights_read
from vivace.graph.build import build_graph
from vivace.graph.graph import Graph
from vivace.types.errors import ModelFileError
from vivace.types.model import ModelSpec
from vivace.types.weights import WeightSource


def weight_shapes(spec: ModelSpec) -> dict[str, Shape]:
    """Every weight of a model with its row-major shape: (out_features, in_features) of a linear, (n,) of a vector.

    Raises:
        UnsupportedModelError: no architecture of the spec's name.
    """
    return graph_weight_shapes(build_graph(spec))


def graph_weight_shapes(graph: Graph) -> dict[str, Shape]:
    """Every weight that the graph reads, with its row-major shape."""
    shapes: dict[str, Shape] = {}
    for op in graph.ops:
        shapes |= weights_read(op, graph)
    return shapes


def check_weights(graph: Graph, weights: WeightSource) -> None:
    """Check before anything is loaded that a file has all weights of the graph in the right shapes.

    Raises:
        ModelFileError: a weight is missing, or its shape is not the one the model's numbers ask for.
    """
    stored = set(weights.names())
    for name, shape in graph_weight_shapes(graph).items():
        if name not in stored:
            raise ModelFileError(
                f"The model file has no tensor for {name!r}, which {graph.spec.architecture} models need.",
                "Get the file again, or convert it with a current tool.",
            )
        found = weights.info(name).shape
        if found != shape:
            raise ModelFileError(
                f"The tensor for {name!r} has shape {found}, but the model's settings ask for {shape}.",
                "Get the file again; its settings and its tensors do not belong together.",
            )
