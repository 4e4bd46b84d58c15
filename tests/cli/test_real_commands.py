"""The commands with a real model, as processes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

DEADLINE_S = 120


def vivace(*arguments: str, stdin: str | None = None) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "vivace", *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=DEADLINE_S, check=False)


def test_generate_answers_a_question(smollm2_path: Path) -> None:
    question = "What is the capital of France?"
    done = vivace("generate", question, "--model", str(smollm2_path), "--temperature", "0", "--max-tokens", "24")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Paris" in done.stdout


def test_generate_raw_continues_a_text(smollm2_path: Path) -> None:
    options = ("--raw", "--temperature", "0", "--max-tokens", "3")
    done = vivace("generate", "-", "--model", str(smollm2_path), *options, stdin="1, 2, 3, 4,")
    assert (done.returncode, done.stdout) == (0, " 5,\n")


def test_chat_remembers_what_was_said(smollm2_path: Path, tmp_path: Path) -> None:
    saved = tmp_path / "talk.json"
    lines = f"My name is Ada.\nWhat is my name?\n/save {saved}\n"
    done = vivace("chat", "--model", str(smollm2_path), "--temperature", "0", "--max-tokens", "24", stdin=lines)
    assert done.returncode == 0
    assert "Ada" in done.stdout
    roles = [message["role"] for message in json.loads(saved.read_text(encoding="utf-8"))["messages"]]
    assert roles == ["user", "assistant", "user", "assistant"]


def test_bench_raw_prints_tokens_per_second(smollm2_path: Path) -> None:
    sizes = ("--prompt", "40", "--decode", "4", "--repeat", "2", "--batch-tokens", "16", "--threads", "1")
    done = vivace("bench", "raw", "--model", str(smollm2_path), *sizes, "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["prompt"] > 0
    assert figures["decode"] > 0
    assert (len(figures["prompt_runs"]), figures["threads"], figures["prompt_tokens"]) == (2, 1, 40)
    narrow = vivace("bench", "raw", "--model", str(smollm2_path), *sizes, "--json", "--kv-format", "int8")
    assert json.loads(narrow.stdout)["kv_bytes_per_token"] * 128 == figures["kv_bytes_per_token"] * 66
    table = vivace("bench", "raw", "--model", str(smollm2_path), *sizes)
    assert "prompt 40" in table.stdout


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("generate", "x", "--model", "no-such-model"), "no-such-model"),
        (("chat", "--model", "/no/such/file.gguf"), "/no/such/file.gguf"),
        (("serve", "--port", "0", "--model", "no-such-model"), "no-such-model"),
        (("bench", "raw", "--model", "no-such-model"), "no-such-model"),
        (("bench", "raw", "--decode", "0"), "--decode"),
        (("bench", "raw", "--threads", "-1"), "--threads"),
        (("bench",), "KIND"),
    ],
)
def test_a_wrong_model_or_size_is_one_line(arguments: tuple[str, ...], hint: str) -> None:
    done = vivace(*arguments, stdin="hi\n")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("vivace: error: ")
    assert done.stderr.count("\n") == 1
    assert hint in done.stderr


def test_a_file_that_is_no_model_is_one_line(tmp_path: Path) -> None:
    fake = tmp_path / "fake.gguf"
    fake.write_bytes(b"GGUF" + bytes(100))
    done = vivace("generate", "x", "--model", str(fake))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("vivace: error: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("generate", "x", "--isa", "mmx"), "mmx"),
        (("generate", "x", "--context", "999999"), "999999"),
        (
            (
                "generate",
                "word " * 9000,
            ),
            "8192",
        ),
        (("bench", "raw", "--prompt", "9000"), "--prompt"),
    ],
)
def test_what_a_model_cannot_do_is_one_line(smollm2_path: Path, arguments: tuple[str, ...], hint: str) -> None:
    done = vivace(*arguments, "--model", str(smollm2_path))
    assert (done.returncode, done.stdout.strip()) == (2, "")
    assert done.stderr.startswith("vivace: error: ")
    assert done.stderr.count("\n") == 1
    assert hint in done.stderr
