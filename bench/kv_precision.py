"""What it would bring to keep the first tokens, or the latest, in full precision beside small KV formats: a simulation.

    python bench/kv_precision.py --model M.gguf --text wiki.test.raw --format int4 --size 512 --windows 6

In numpy, on the reference executor. A row at position p reads a token at position t as it was computed if t < first or
p - t < recent, and else as the format stores it: a rule of the two positions alone, so that no chunk and no batch could
change a text. `extra` is the memory that full-precision copies would add to what the format takes, for one window.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from vivace.execute import reference
from vivace.execute.reference import ReferenceExecutor
from vivace.execute.reference_attention import KeyValuePages
from vivace.execute.score import cut_windows, score_windows
from vivace.files.open import open_model
from vivace.graph.build import build_graph
from vivace.graph.ops import Attention
from vivace.numerics.kv_formats import KV_FORMATS
from vivace.text.build import build_tokenizer
from vivace.types.step import BLOCK_SIZE, ForwardBatch

Rows = np.ndarray
RULES = ((0, 0), (16, 0), (16, 64))  # first, recent


class MixedAttention:
    """Stands in for the reference executor's attention over one sequence; remembers what was computed exactly."""

    def __init__(self, name: str, size: int, first: int, recent: int) -> None:
        self.format = KV_FORMATS[name]
        self.first, self.recent, self.size = first, recent, size
        self.exact: dict[int, tuple[Rows, Rows]] = {}
        self.stored: dict[int, tuple[Rows, Rows]] = {}

    def __call__(self, op: Attention, q: Rows, k: Rows, v: Rows, *, batch: ForwardBatch, pages: KeyValuePages) -> Rows:
        """As `attend`."""
        positions, heads = batch.positions, (-1, op.num_kv_heads, op.head_dim)
        end = int(positions[-1]) + 1
        for store, keep in ((self.exact, False), (self.stored, True)):
            shape = (self.size, op.num_kv_heads, op.head_dim)
            keys, values = store.setdefault(op.layer, (np.zeros(shape, np.float32), np.zeros(shape, np.float32)))
            new_k, new_v = k.reshape(heads), v.reshape(heads)
            keys[positions] = self.format.keep_keys(new_k) if keep else new_k
            values[positions] = self.format.keep_values(new_v) if keep else new_v
        distance = positions[:, None] - np.arange(end)
        seen = (distance >= 0) & (distance < (op.window or end))
        precise = (np.arange(end) < self.first) | (distance < self.recent)
        group = op.num_heads // op.num_kv_heads
        queries = q.reshape(len(q), op.num_kv_heads, group, op.head_dim).transpose(1, 2, 0, 3) * np.float32(op.scale)
        exact, stored = (
            [half[:end].transpose(1, 0, 2)[:, None] for half in store[op.layer]] for store in (self.exact, self.stored)
        )
        scores = np.where(precise, queries @ exact[0].swapaxes(-1, -2), queries @ stored[0].swapaxes(-1, -2))
        scores[..., ~seen] = -np.inf
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        mixed = np.where(precise, weights, 0) @ exact[1] + np.where(precise, 0, weights) @ stored[1]
        return mixed.transpose(2, 0, 1, 3).reshape(len(q), -1).astype(np.float32)


def main(arguments: list[str]) -> int:
    """Print a row for each rule."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--format", default="int4")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--windows", type=int, default=6)
    options = parser.parse_args(arguments)
    model = open_model(options.model)
    assert model.vocabulary is not None
    tokenizer = build_tokenizer(model.vocabulary)
    ids = tokenizer.encode(options.text.read_text(encoding="utf-8")[: 40 * options.size * options.windows])
    windows = cut_windows(ids, options.size, options.windows, tokenizer.bos_id if tokenizer.adds_bos else None)
    blocks = -(-options.size // BLOCK_SIZE)
    executor = ReferenceExecutor(build_graph(model.spec), model.weights, num_blocks=blocks)
    shape = model.spec.attention
    small = KV_FORMATS[options.format].bytes_per_position(shape.num_kv_heads, shape.head_dim)
    exact = KV_FORMATS["f16"].bytes_per_position(shape.num_kv_heads, shape.head_dim)
    plain = score_windows(executor, windows).perplexity
    print(
        "| first | recent | extra memory | perplexity | over float32 |\n|---|---|---|---|---|\n"
        f"| all | | | {plain:.2f} | |"
    )
    for first, recent in RULES:
        reference.attend = MixedAttention(options.format, options.size, first, recent)
        found = score_windows(executor, windows).perplexity
        extra = (first + recent) * exact / (options.size * small)
        print(f"| {first} | {recent} | {extra:.1%} | {found:.2f} | {found / plain - 1:.1%} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
