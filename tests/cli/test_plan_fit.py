"""`vivace plan fit`, `quantize` and `method` from their command lines."""

import json

import pytest

from vivace.cli.main import main
from vivace.numerics.formats import FORMATS as NUMBER_FORMATS
from vivace.plan.fit import FORMATS
from vivace.types.weights import TensorFormat


def test_exercise_5_ends_with_its_own_status(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["plan", "fit", "--params", "70B", "--memory", "16GiB", "--quality", "0.95"]
    assert main(asked) == 3
    printed = capsys.readouterr().out
    assert "Not reachable; nearest in this memory is" in printed
    assert "nearest at this quality" in printed
    assert main([*asked, "--json"]) == 3
    figures = json.loads(capsys.readouterr().out)
    assert figures["reachable"] is False
    assert figures["plans"] == []
    assert figures["nearest_in_quality"]["total_bytes"] > figures["memory_bytes"] == 16 * 2**30


def test_a_plan_that_fits_is_ranked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "fit", "--params", "8B", "--memory", "8GiB", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["plans"][0]["blocks"]["runs_here"]
    assert set(figures["plans"][0]["num_bytes"]) == {
        "embedding", "blocks", "head", "KV cache", "activations", "runtime",
    }  # fmt: skip
    assert main(["plan", "fit", "--params", "8B", "--memory", "100MB"]) == 3
    assert "no layout fits" in capsys.readouterr().out


def test_exercise_3_and_the_tree(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "quantize", "0.15", "--low=-2.5", "--high", "3.2"]) == 0
    assert "code        6" in capsys.readouterr().out
    assert main(["plan", "method", "--params", "3B", "--json"]) == 0
    assert "QAT" in json.loads(capsys.readouterr().out)["chapter"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("fit", "--memory", "16GiB"), "one of the two"),
        (("fit", "--params", "70B", "--memory", "much"), "--memory is 'much'"),
        (("fit", "--params", "70X", "--memory", "1GiB"), "--params is '70X'"),
        (("fit", "--params", "70B", "--memory", "1GiB", "--quality", "95"), "between 0 and 1"),
        (("quantize", "1", "--low", "2", "--high", "1"), "empty"),
        (("method", "--params", "1B", "--goal", "x"), "no goal"),
    ],
)
def test_mistakes_are_one_line(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str) -> None:
    assert main(["plan", *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_every_format_that_runs_here_is_planned_with_the_bits_it_has() -> None:
    named = {row.name: row for row in FORMATS if row.runs_here}
    assert {"Q8_64", "Q6_0"} <= set(named)
    for name, row in named.items():
        assert row.bits == NUMBER_FORMATS[TensorFormat(name)].bits_per_weight
