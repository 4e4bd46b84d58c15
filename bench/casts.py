"""Inference casts: what reading inputs in less than float32 costs, policy by policy (src/vivace/graph/casts.py).

    python bench/casts.py --model M.gguf --text wiki.test.raw --windows 2

Every policy is written into the op list and run by the reference executor over the same float32 copies of the weights,
so that nothing but casts differs; `native-12` and `native-8` are what the C++ core does. Speed of the two is that of
`bench/formats.py --measure --activation-bits 12` and `8`.
"""

import argparse
import sys
from pathlib import Path

from vivace.compress.evaluate import EvaluationSettings, read_windows
from vivace.execute.native_program import quantized_in
from vivace.execute.reference import ReferenceExecutor
from vivace.execute.score import compare_executors
from vivace.files.open import open_model
from vivace.graph.build import build_graph
from vivace.graph.casts import POLICIES
from vivace.graph.passes import cast_inputs
from vivace.types.errors import VivaceError
from vivace.types.step import BLOCK_SIZE

WINDOW = 512


def parse(arguments: list[str]) -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description="What inference casts cost.")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--windows", type=int, default=2)
    parser.add_argument(
        "--policies", nargs="+", choices=list(POLICIES), default=[name for name in POLICIES if name != "f32"]
    )
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Print a row for each policy."""
    options = parse(arguments)
    try:
        model = open_model(options.model)
        windows = read_windows(model, options.text, EvaluationSettings(WINDOW, options.windows))
        graph = build_graph(model.spec)
        plain = ReferenceExecutor(graph, model.weights, num_blocks=WINDOW // BLOCK_SIZE)
        print("| policy | allowed ops read | denied ops read | KL divergence | same top token |\n|---|---|---|---|---|")
        for name in options.policies:
            policy = POLICIES[name]
            cast = cast_inputs(graph, policy, quantized_in(model.weights))
            candidate = ReferenceExecutor(cast, model.weights, num_blocks=WINDOW // BLOCK_SIZE)
            found = compare_executors(plain, candidate, windows)
            print(
                f"| `{name}` | {policy.over_codes} | {policy.denied} | {found.mean_kl:.1e} | {found.same_top:.1%} |",
                flush=True,
            )
    except (VivaceError, OSError) as error:
        print(f"casts: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
