"""Calibration on request logs: conversations are found, what must not stay is taken out, and consent is asked."""

import json
from pathlib import Path

import pytest

from vivace.cli.main import main
from vivace.compress.server_logs import read_logs
from vivace.types.errors import ConfigError

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

    from vivace.cli.compress import _with_logs
    from vivace.compress.samples import CalibrationText

    log = tmp_path / "log.jsonl"
    secret = "sk-" + "a1" * 12
    log.write_text(json.dumps({"messages": [{"content": f"mail anna@example.org, key {secret}, fine"}]}))
    text = _with_logs(argparse.Namespace(from_logs=[log], logs_consented=True), CalibrationText())
    assert [found.text for found in text.read()] == ["mail [removed], key [removed], fine"]
