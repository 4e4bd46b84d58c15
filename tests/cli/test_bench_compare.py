"""`vivace bench compare`: its arithmetic, its turns, and a whole run against ourselves on a small model."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from factories.gguf_files import small_spec, write_gguf
from vivace.cli import bench_compare
from vivace.cli.compare import cases, machine, peers, quality
from vivace.cli.compare.cases import Case, figures_of, prompts_of
from vivace.cli.compare.child_process import Answer, PeerProcess
from vivace.cli.compare.environments import PeerError, install, python_of
from vivace.cli.compare.report import Comparison, RowFacts, as_table, draw
from vivace.cli.compare.sanity import GreedyAnswer
from vivace.cli.compare.turns import Conditions, Failures, Runs, measure
from vivace.cli.main import main
from vivace.types.errors import ConfigError
from vivace.types.weights import TensorFormat


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "small.gguf"
    write_gguf(path, small_spec(), format=TensorFormat.Q4_1)
    return path


def test_one_stream_reads_until_its_first_token_and_writes_after_it() -> None:
    figures = figures_of(Case(1, 100, 3), [[2.0, 3.0, 4.0]])
    assert figures == {"read 100": 50.0, "write 2": 1.0}


def test_a_prompt_alone_has_no_writing() -> None:
    assert figures_of(Case(1, 100, 1), [[0.5]]) == {"read 100": 200.0}


def test_streams_write_from_the_moment_the_last_one_has_its_first_token() -> None:
    figures = figures_of(Case(2, 10, 4), [[1.0, 1.5, 2.0, 3.0], [2.0, 2.5, 3.0, 4.0]])
    assert figures["2 streams, read 10"] == 10.0
    assert figures["2 streams, write 3"] == 2.0  # one token of the first stream and three of the second, in 2 s


def test_pieces_of_text_count_as_many_tokens_as_were_asked_for() -> None:
    figures = figures_of(Case(1, 10, 9), [[1.0, 2.0, 3.0]])  # three pieces stand for nine tokens
    assert figures["write 8"] == 3.0


def test_prompts_are_as_long_as_asked_and_the_same_for_everybody_but_never_twice() -> None:
    def encode(text: str) -> Sequence[int]:
        return [ord(letter) for letter in text]

    case = Case(3, 20, 1)
    first, again, other = (prompts_of(case, turn, encode) for turn in (0, 0, 1))
    assert [len(prompt) for prompt in first] == [20, 20, 20]
    assert first == again != other
    assert first[0] != first[1] != first[2]


@pytest.mark.parametrize(
    ("rows", "hint"), [("nobody", "nobody"), ("vivace:int4", "int4"), ("vivace,xllamacpp:bf16", "bf16")]
)
def test_unknown_rows_are_refused_by_name(rows: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        bench_compare.choose_rows(rows)


def test_rows_are_every_peer_unless_asked_for() -> None:
    assert [row.name for row in bench_compare.choose_rows("vivace,vivace:Q8_0")] == ["vivace", "vivace:Q8_0"]
    assert len(bench_compare.choose_rows(None)) == len(peers.PEERS)


class ScriptedRow:
    """A row that notes when it was asked, and can break."""

    pid = None

    def __init__(self, name: str, asked: list[str], breaks_at: int = 99) -> None:
        self.name, self.asked, self.breaks_at = name, asked, breaks_at

    def generate(self, prompts: Sequence[Sequence[int]], num_tokens: int) -> Answer:
        if self.asked.count(self.name) == self.breaks_at:
            raise PeerError("it broke", "mend it")
        self.asked.append(self.name)
        return Answer([[1]], [""], [[0.5 * (i + 1) for i in range(num_tokens)] for _ in prompts])


def measured(asked: list[str], failures: Failures, *rows: ScriptedRow) -> dict[str, dict[str, Runs]]:
    running = cast("dict[str, PeerProcess]", {row.name: row for row in rows})
    encode: Callable[[str], Sequence[int]] = lambda text: [1] * len(text)  # noqa: E731
    return measure(
        running, [Case(1, 10, 3)], Conditions(turns=3), encode=encode, failures=failures, progress=lambda line: None
    )


def test_turns_go_back_and_forth_after_one_to_warm_up() -> None:
    asked: list[str] = []
    figures = measured(asked, Failures(), ScriptedRow("a", asked), ScriptedRow("b", asked))
    assert "".join(asked) == "ba" + "ab" + "ba" + "ab"
    assert figures["read 10"]["a"].values == [20.0] * 3
    assert figures["write 2"]["b"].median == 2.0


def test_a_row_that_breaks_is_left_out_and_the_others_go_on() -> None:
    asked: list[str] = []
    failures = Failures()
    figures = measured(asked, failures, ScriptedRow("a", asked), ScriptedRow("b", asked, breaks_at=2))
    assert failures.reasons == {"b": "it broke"}
    assert (len(figures["read 10"]["a"].values), len(figures["read 10"]["b"].values)) == (3, 1)


def test_a_disturbed_run_is_repeated_and_the_least_disturbed_one_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = iter([0.0, 0.9, 0.2, 0.5])  # the turn that warms up, then three tries
    monkeypatch.setattr("vivace.cli.compare.turns.others_share", lambda start, end: next(shares))
    asked: list[str] = []
    row = cast(PeerProcess, ScriptedRow("a", asked))
    figures = measure(
        {"a": row},
        [Case(1, 10, 1)],
        Conditions(turns=1, quiet=0.1, retries=2),
        encode=lambda text: [1] * len(text),
        failures=Failures(),
        progress=lambda line: None,
    )
    assert figures["read 10"]["a"].others == [0.2]
    assert len(asked) == 4


def comparison() -> Comparison:
    result = Comparison({"processor": "test", "threads": 2}, "m.gguf", "vivace", {"turns": 2})
    for name, sane in (("vivace", True), ("peer", False)):
        result.facts[name] = RowFacts({}, 0.5, 0.4, 2**20, GreedyAnswer("Paris" if sane else "x", sane))
    result.figures = {
        "read 10": {
            "vivace": Runs([8.0, 12.0], [0.1, 0.2], [1.0, 2.0]),
            "peer": Runs([4.0, 6.0], [0.0, 0.0], [1.0, 1.0]),
        }
    }
    result.absent["other"] = "not installed add --install"
    return result


def test_the_report_has_medians_ratios_spread_and_reasons() -> None:
    table = as_table(comparison())
    assert "5 (2.00 x)" in table
    assert "8 to 12" in table
    assert "NOT SANE" in table
    assert "absent: other: not installed" in table
    assert "others used 5% of the machine beside a run (worst 20%); load average 1.0 to 2.0" in table


def test_json_has_every_run() -> None:
    found = json.loads(json.dumps(comparison().as_json()))
    assert found["figures"]["read 10"]["peer"]["vivace_is_faster_by"] == 2.0
    assert found["figures"]["read 10"]["vivace"]["runs"] == [8.0, 12.0]
    assert found["absent"] == {"other": "not installed add --install"}


def test_the_plot_is_a_png(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    draw(comparison(), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_others_share_is_what_is_neither_ours_nor_idle() -> None:
    start = machine.Moment(at_s=0.0, all_s=100.0, ours_s=10.0)
    cores = os.cpu_count() or 1
    end = machine.Moment(at_s=10.0, all_s=100.0 + 5.0 * cores, ours_s=10.0 + 2.0 * cores)
    assert machine.others_share(start, end) == pytest.approx(0.3)


def test_a_whole_run_compares_us_with_ourselves_and_lists_the_absent(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VIVACE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cases, "CASES", {"quick": (Case(1, 8, 4), Case(2, 8, 4))})
    monkeypatch.setattr(quality, "WINDOW", 32)
    saved, text = tmp_path / "found.json", tmp_path / "text.txt"
    text.write_text("The quiet river runs under the bridge and past the market. " * 40, encoding="utf-8")
    rows = ("--rows", "vivace,vivace-8bit:Q8_0,xllamacpp", "--threads", "1", "--turns", "1", "--quality", str(text))
    assert main(["bench", "compare", "--model", str(model), *rows, "--cases", "quick", "--json", str(saved)]) == 0
    table = capsys.readouterr().out
    assert "absent: xllamacpp: not installed add --install" in table
    found: dict[str, Any] = json.loads(saved.read_text(encoding="utf-8"))
    assert set(found["figures"]) == {"read 8", "write 3", "2 streams, read 8", "2 streams, write 3"}
    assert set(found["figures"]["write 3"]) == {"vivace", "vivace-8bit:Q8_0"}
    assert found["rows"]["vivace"]["peak_bytes"] > 0
    assert found["rows"]["vivace"]["engine"]["threads"] == 1
    near, coarse = (found["rows"][name]["quality"] for name in ("vivace", "vivace-8bit:Q8_0"))
    assert near["num_positions"] == 4 * 16
    assert near["mean_kl"] < 1e-3 < near["same_top"]
    assert near["perplexity_ratio"] == pytest.approx(1, abs=0.01)
    assert near["mean_kl"] < coarse["mean_kl"]
    assert "same top token" in table


def test_a_comparison_that_was_stopped_goes_on_where_it_was(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cases, "CASES", {"quick": (Case(1, 8, 4), Case(2, 8, 4))})
    kept, first, again = tmp_path / "state.json", tmp_path / "first.json", tmp_path / "again.json"
    command = ["bench", "compare", "--model", str(model), "--rows", "vivace", "--threads", "1", "--cases", "quick"]
    command += ["--turns", "2", "--state", str(kept)]
    calls: list[int] = []
    plain = PeerProcess.generate

    def generate(self: PeerProcess, prompts: Sequence[Sequence[int]], num_tokens: int) -> Answer:
        calls.append(len(prompts))
        if len(calls) == 8:  # two of the question, three of one stream, the warm-up of two, one of theirs, and so far
            raise KeyboardInterrupt
        return plain(self, prompts, num_tokens)

    monkeypatch.setattr(PeerProcess, "generate", generate)
    assert main([*command, "--json", str(first)]) == 130
    assert main([*command, "--json", str(first)]) == 0
    assert calls[8:] == [1, 1, 2, 2]  # the question again, the warm-up, and the one run that was missing
    num_calls = len(calls)
    assert main([*command, "--json", str(again)]) == 0
    assert len(calls) == num_calls + 2
    one, two = (json.loads(path.read_text(encoding="utf-8")) for path in (first, again))
    assert one["figures"] == two["figures"]
    assert len(one["figures"]["write 3"]["vivace"]["runs"]) == 2
    assert main([*command, "--turns", "1"]) == 2
    assert "another comparison (conditions differ)" in capsys.readouterr().err
    kept.write_text("{}", encoding="utf-8")
    assert main(command) == 2
    assert "cannot be read as the state" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--state", "--json", "--plot"])
def test_a_file_that_cannot_be_written_is_refused_before_the_work(
    option: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["bench", "compare", "--model", str(model), "--rows", "vivace", "--cases", "quick", option]
    for path, said in ((tmp_path, "is a folder"), (tmp_path / "none" / "a.json", "is not there")):
        assert main([*command, str(path)]) == 2
        assert said in capsys.readouterr().err


def test_a_child_that_cannot_load_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIVACE_CACHE", str(tmp_path))
    options = {"model": str(tmp_path / "none.gguf"), "threads": 1, "shapes": [[1, 8]]}
    with pytest.raises(PeerError, match=r"none\.gguf"):
        PeerProcess(peers.PEERS["vivace"], "test", options)


def test_an_installation_that_fails_says_why_and_is_not_taken_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIVACE_CACHE", str(tmp_path))
    peer = peers.Peer("broken", "none", ("file",), packages=((str(tmp_path / "no-such-package"),),))
    with pytest.raises(PeerError, match="cannot be installed"):
        install(peer)
    with pytest.raises(PeerError, match="not installed"):
        python_of(peer)


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("--cases", "some"), "cases 'some'"),
        (("--turns", "0"), "--turns"),
        (("--rows", "nobody"), "nobody"),
    ],
)
def test_what_cannot_work_is_one_line(
    arguments: tuple[str, ...], hint: str, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "compare", "--model", str(model), *arguments]) == 2
    error = capsys.readouterr().err
    assert hint in error
    assert error.count("\n") == 1


def test_the_list_shows_peers_and_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VIVACE_CACHE", str(tmp_path))
    assert main(["bench", "compare", "--list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in peers.PEERS)
    assert "absent (--install takes about" in listed
