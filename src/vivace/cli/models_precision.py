"""The table of `vivace models show NAME --precision`: what every op of a model reads, computes and writes here."""

from collections import Counter

from vivace.execute.native_program import bfloats_in, quantized_in
from vivace.files.open import LoadedModel
from vivace.graph.build import build_graph
from vivace.graph.casts import CastPolicy, input_precision, rule_of
from vivace.graph.ops import Embed, Linear, Op

Row = dict[str, str | int | bool]


def precision_rows(model: LoadedModel, policy: CastPolicy) -> list[Row]:
    """One row for all ops of a model that stand on the same list, read alike and have weights of one format.

    Args:
        model: open.
        policy: a row of `graph.casts.POLICIES`.
    """
    is_quantized, is_bfloat = quantized_in(model.weights), bfloats_in(model.weights)
    counted: Counter[tuple[str, str, str]] = Counter()
    reasons: dict[str, tuple[bool, str]] = {}
    for op in build_graph(model.spec).ops:
        rule = rule_of(op)
        over_codes = isinstance(op, Linear) and is_quantized(op.weight)
        over_bfloats = isinstance(op, Linear) and is_bfloat(op.weight)
        reads = input_precision(op, policy, over_codes=over_codes, over_bfloats=over_bfloats)
        if isinstance(op, Embed):
            reads = "-"
        counted[rule.what, reads, _weight_format(op, model)] += 1
        reasons[rule.what] = (rule.is_allowed, rule.why)
    return [
        {
            "op": what,
            "count": count,
            "allowed": reasons[what][0],
            "reads": reads,
            "weights": weights,
            "writes": "f32",
            "why": reasons[what][1],
        }
        for (what, reads, weights), count in counted.items()
    ]


def print_precision(model: LoadedModel, policy: CastPolicy, kv_format: str) -> None:
    """Print the rows as a table, keys and values below it."""
    head = ("OP", "COUNT", "LIST", "READS", "WEIGHTS", "WRITES", "WHY")
    table: list[tuple[str, ...]] = [head]
    for row in precision_rows(model, policy):
        cells = {**row, "list": "allow" if row["allowed"] else "deny"}
        table.append(tuple(str(cells[title.lower()]) for title in head))
    widths = [max(len(line[column]) for line in table) for column in range(len(head))]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    print(f"\nkeys and values are stored as {kv_format}; scores, softmax and sums of values are f32")


def _weight_format(op: Op, model: LoadedModel) -> str:
    weight = getattr(op, "weight", None)
    return str(model.weights.info(weight).format) if isinstance(weight, str) else "-"
