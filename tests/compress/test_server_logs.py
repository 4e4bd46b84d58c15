"""Calibration on request logs: conversations are found, what must not stay is taken out, and consent is asked."""

import json
from itertools import product
from pathlib import Path

import pytest

from factories.gguf_files import small_spec, write_gguf
from vivace.cli.main import main
from vivace.compress.server_logs import read_logs
from vivace.types.errors import ConfigError

TALK = (
    ("Anna", "The old man", "A friend", "Nobody", "My sister"),
    ("market", "river", "station", "library"),
    ("noon", "dark", "the rain", "breakfast", "anyone saw"),
)
LINES = [
    {"request": {"model": "m", "user": "anna", "messages": [{"role": "user", "content": "write to anna@example.org"}]},
     "response": {"choices": [{"message": {"role": "assistant", "content": "a first answer"}}]}},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "a part of a message"}]}]},
    {"method": "GET", "path": "/health", "status": 200},
]  # fmt: skip


def write(path: Path) -> Path:
    path.write_text("\n".join([*map(json.dumps, LINES), "127.0.0.1 - no JSON at all"]))
    return path


def test_conversations_are_found_and_nothing_beside_them(tmp_path: Path) -> None:
    found = read_logs([write(tmp_path / "log.jsonl")], lambda text: text.replace("anna@example.org", "[removed]"))
    assert [text.text for text in found] == ["write to [removed]\na first answer", "a part of a message"]
    assert {text.label for text in found} == {"chat"}


def test_logs_without_a_conversation_are_refused(tmp_path: Path) -> None:
    (tmp_path / "log").write_text('{"status": 200}\n')
    with pytest.raises(ConfigError, match="no conversations"):
        read_logs([tmp_path / "log"], str)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_logs([tmp_path / "none"], str)


def test_the_command_asks_for_consent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = write(tmp_path / "log.jsonl")
    assert main(["compress", "m.gguf", str(tmp_path / "o.gguf"), "--from-logs", str(log)]) == 2
    assert "--logs-consented" in capsys.readouterr().err


def test_personal_data_and_secrets_are_taken_out_by_the_command(tmp_path: Path) -> None:
    import argparse

    from vivace.cli.text_options import calibration_text, text_in_use

    log = tmp_path / "log.jsonl"
    secret = "sk-" + "a1" * 12
    log.write_text(json.dumps({"messages": [{"content": f"mail anna@example.org, key {secret}, fine"}]}))
    given = argparse.Namespace(calibrate_on=None, from_logs=[log], like=None, like_logs=[log], logs_consented=True)
    for text in (calibration_text(given), text_in_use(given)):
        assert text is not None
        assert [found.text for found in text.read()] == ["mail [removed], key [removed], fine"]


def test_the_doctor_looks_at_logs_and_holds_them_against_live_traffic(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_gguf(tmp_path / "m.gguf", small_spec(num_layers=2))
    words = [f"{name} went to the {place} and came back before {time}." for name, place, time in product(*TALK)]
    for name, picked in (("mine", words[::2]), ("traffic", words[1::2])):
        lines = [json.dumps({"request": {"messages": [{"role": "user", "content": said}]}}) for said in picked]
        (tmp_path / name).write_text("\n".join(lines * 8))
    logs = ["--from-logs", str(tmp_path / "mine"), "--like-logs", str(tmp_path / "traffic")]
    doctor = ["compress", "doctor", str(tmp_path / "m.gguf"), "--tokens", "32", "--samples", "8"]
    assert main([*doctor, *logs]) == 2
    assert "--logs-consented" in capsys.readouterr().err
    assert main([*doctor, *logs, "--logs-consented", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["is_good"] is True
    assert main([*doctor, *logs[:2], "--logs-consented"]) == 2
    assert "text as in use" in capsys.readouterr().err
    assert main([*doctor, *logs[2:], "--logs-consented"]) == 2
    assert "--like needs text" in capsys.readouterr().err
