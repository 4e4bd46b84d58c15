"""`vivace generate`: the answer and nothing else."""

import io
import sys
from collections.abc import Callable

import pytest

from factories.scripted_service import SCRIPT, ScriptedService

TEXT = "".join(SCRIPT)
RunVivace = Callable[..., int]


def test_only_the_answer_is_on_standard_output(vivace: RunVivace, capsys: pytest.CaptureFixture[str]) -> None:
    assert vivace("generate", "hello") == 0
    assert capsys.readouterr() == (TEXT + "\n", "")


def test_the_chat_template_is_applied_unless_raw(vivace: RunVivace, service: ScriptedService) -> None:
    assert vivace("generate", "hello", "--system", "Be brief.") == 0
    assert vivace("generate", "hello", "--raw") == 0
    prompts = [bytes(request.prompt_ids) for request in service.requests]
    assert prompts == [b"\x01<system>Be brief.<user>hello<assistant>", b"\x01hello"]


def test_options_reach_the_engine(vivace: RunVivace, service: ScriptedService) -> None:
    options = "--temperature 0 --max-tokens 3 --top-k 5 --top-p 0.5 --min-p 0.25 --seed 7 --repetition-penalty 1.5"
    assert vivace("generate", "x", *options.split(), "--stop", "a", "--stop", "b") == 0
    request = service.requests[0]
    sampling, stopping = request.sampling, request.stopping
    assert (sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p) == (0, 5, 0.5, 0.25)
    assert (sampling.seed, sampling.repetition_penalty) == (7, 1.5)
    assert (stopping.max_tokens, stopping.stop) == (3, ("a", "b"))


def test_the_prompt_may_come_from_standard_input(
    vivace: RunVivace, service: ScriptedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("你好\nzwei".encode())))
    assert vivace("generate", "-", "--raw") == 0
    assert bytes(service.requests[0].prompt_ids[1:]).decode() == "你好\nzwei"


def test_the_default_length_shrinks_to_what_the_context_has_left(vivace: RunVivace, service: ScriptedService) -> None:
    assert vivace("generate", "x" * 500, "--raw") == 0
    assert service.requests[0].stopping.max_tokens == 512 - 501


def test_a_cut_answer_is_noted_on_standard_error(
    vivace: RunVivace, service: ScriptedService, capsys: pytest.CaptureFixture[str]
) -> None:
    service.context_length = 8
    assert vivace("generate", "abc", "--raw") == 0
    output, errors = capsys.readouterr()
    assert output == "".join(SCRIPT[:4]) + "\n"
    assert "cut at 4 tokens" in errors


def test_stats_go_to_standard_error(vivace: RunVivace, capsys: pytest.CaptureFixture[str]) -> None:
    assert vivace("generate", "hello", "--stats") == 0
    output, errors = capsys.readouterr()
    assert output == TEXT + "\n"
    assert f"{len(SCRIPT)} written" in errors


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["generate"], "PROMPT"),
        (["generate", "x", "--temperature", "hot"], "hot"),
        (["generate", "x", "--temperature", "-1"], "temperature"),
        (["generate", "x", "--max-tokens", "0"], "max_tokens"),
        (["generate", "x", "--max-tokens", "99999"], "512"),
        (["generate", "x" * 600], "512"),
        (["generate", "", "--raw", "--top-p", "2"], "top_p"),
        (["generate", "x", "--raw", "--system", "y"], "--system"),
        (["generate", "x", "--threads", "0"], "--threads"),
        (["generate", "x", "--context", "-3"], "--context"),
        (["generate", "x", "--no-such-option"], "--no-such-option"),
        (["no-such-command"], "no-such-command"),
        ([], "COMMAND"),
    ],
)
def test_wrong_arguments_are_one_line_and_status_two(
    vivace: RunVivace, capsys: pytest.CaptureFixture[str], arguments: list[str], hint: str
) -> None:
    assert vivace(*arguments) == 2
    output, errors = capsys.readouterr()
    assert output.strip() == ""
    assert errors.startswith("vivace: error: ")
    assert errors.count("\n") == 1
    assert hint in errors


def test_standard_input_that_is_not_utf8_is_refused(
    vivace: RunVivace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"ab\xff")))
    assert vivace("generate", "-") == 2
    assert "not UTF-8 (byte 2)" in capsys.readouterr().err
