"""The doctor tells a one-sided set from a good one, names what is missing, and its test is calibrated."""

import json
from pathlib import Path

import numpy as np
import pytest

from factories.gguf_files import small_spec, write_gguf
from factories.tiny_models import random_weights
from factories.vocabularies import tokenizer_json
from vivace.cli.main import main
from vivace.compress.calibration_text import LabelledText
from vivace.compress.doctor import diagnose, relative_coverage, token_coverage, two_sample_test
from vivace.compress.text_kinds import kind_of, relabelled
from vivace.text.build import build_tokenizer
from vivace.types.errors import ConfigError
from vivace.types.vocabulary import HuggingFaceVocabulary

CODE = "def add(a, b):\n    return a + b\n\nfor x in range(3):\n    add(x, 1);\n"
PROSE = "the sand and the one that is in the hand of those on the land, or at an end of it all. "


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (CODE, "code"),
        (PROSE * 3, "prose"),
        ("今天天气很好，我们去公园散步吧。" * 3, "Chinese"),
        ("Сегодня хорошая погода, пойдём гулять.", "other scripts"),
        ("今日はいい天気ですね。散歩に行きましょう。", "other scripts"),
        ("12 + 30 = 42, 42 * 2 = 84, 84 / 4 = 21", "sums"),
    ],
)
def test_kinds_of_text_are_told_apart(text: str, kind: str) -> None:
    assert kind_of(text) == kind
    assert {piece.label for piece in relabelled([LabelledText("x", text)])} == {kind}


def test_the_two_sample_test_keeps_quiet_and_speaks_up() -> None:
    generator = np.random.default_rng(0)
    quiet = sum(
        two_sample_test(*(generator.standard_normal((8, 5)).astype(np.float32) for _ in range(2)))[1] < 0.05
        for _ in range(20)
    )
    assert quiet <= 3
    left, right = (generator.standard_normal((12, 5)).astype(np.float32) + shift for shift in (0, 2))
    distance, p_value = two_sample_test(left, right)
    assert p_value < 0.01
    assert distance > 0.2


def test_coverage_is_held_against_traffic_itself() -> None:
    same = [np.arange(10, dtype=np.int32)] * 4
    half = [np.arange(5, dtype=np.int32)] * 4
    assert token_coverage(half, same) == 0.5
    assert relative_coverage(same, same) == 1.0
    assert relative_coverage(half, same) == 0.5


def test_a_one_sided_set_is_named_and_a_good_one_passes() -> None:
    tokenizer = build_tokenizer(HuggingFaceVocabulary(tokenizer_json(), {}))
    spec = small_spec(vocab_size=tokenizer.vocab_size)
    weights = random_weights(spec)
    prose, code = (np.array(tokenizer.encode(text * 60), np.int32) for text in (PROSE, CODE))
    traffic, good = ([prose[start : start + 48] for start in range(first, first + 480, 60)] for first in (0, 31))
    one_sided = [code[start : start + 48] for start in range(0, 480, 60)]
    passed = diagnose(spec, weights, tokenizer, calibration=good, reference=traffic)
    assert passed.is_good, passed.complaints
    assert passed.range_overlap > 0.7
    found = diagnose(spec, weights, tokenizer, calibration=one_sided, reference=traffic)
    assert not found.is_good
    assert found.token_coverage < passed.token_coverage
    assert found.range_overlap < passed.range_overlap
    assert found.p_value < 0.01
    with pytest.raises(ConfigError, match="at least 4 windows"):
        diagnose(spec, weights, tokenizer, calibration=good[:3], reference=traffic)


def test_the_command_warns_before_a_run_and_draws_by_kinds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_gguf(tmp_path / "m.gguf", small_spec(num_layers=2))
    (tmp_path / "code.py").write_text(CODE * 300)
    (tmp_path / "prose.txt").write_text(PROSE * 300)
    asked = ["--calibrate-on", str(tmp_path / "code.py"), "--like", str(tmp_path / "prose.txt")]
    assert main(["compress", "doctor", str(tmp_path / "m.gguf"), *asked, "--tokens", "64", "--json"]) == 3
    found = json.loads(capsys.readouterr().out)
    assert found["is_good"] is False
    assert "prose is 100%" in " ".join(found["complaints"])
    out = tmp_path / "o.gguf"
    assert main(["compress", str(tmp_path / "m.gguf"), str(out), *asked, "--recipe", "int4-fast"]) == 0
    assert "calibration is one-sided: prose" in capsys.readouterr().err
    assert main(["compress", "doctor", str(tmp_path / "m.gguf"), *asked[:2], "--like", asked[1], "--tokens", "64"]) == 0
    assert "verdict          good" in capsys.readouterr().out
