"""Levels of precision in the whole engine: by position the text stays what it is, by load it follows the moment."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from compress.models import random_windows, uneven_model
from engine.harness import make_request, run_to_end, small_config, tokens_of
from engine.test_speculation import Oracle
from vivace.cli.main import main
from vivace.compress.pipeline import compress_weights
from vivace.compress.recipe import PRESETS
from vivace.compress.stored import StoredWeights
from vivace.engine import precision
from vivace.engine.build import EngineConfig
from vivace.engine.core import Engine
from vivace.engine.precision import PrecisionPolicy, parse_precision
from vivace.execute.native import NativeExecutor
from vivace.graph.build import build_graph
from vivace.types.draft import Speculator
from vivace.types.model import ModelSpec
from vivace.types.request import GenerationRequest, SamplingParams

BANDS = "bands:0=full,20=mixed,45=low,70=full"


@cache
def nested_model() -> tuple[ModelSpec, StoredWeights]:
    spec, weights = uneven_model()
    return spec, compress_weights(spec, weights, PRESETS["nested"], random_windows(spec)).weights


def make_engine(
    policy: PrecisionPolicy | None, speculator: Speculator | None = None, num_blocks: int = 200, **settings: object
) -> Engine:
    spec, weights = nested_model()
    executor = NativeExecutor(build_graph(spec), weights, num_blocks=num_blocks, num_threads=1)
    return Engine(executor, small_config(**settings), speculator=speculator, precision=policy)


def requests() -> list[GenerationRequest]:
    random = np.random.default_rng(2)
    shared = random.integers(5, nested_model()[0].vocab_size, 40).tolist()
    sampling = SamplingParams(seed=3, temperature=3.0)  # flat, so that a little error shows in what is drawn
    return [
        make_request(f"r{count}", [*shared, *range(5, 5 + count)], 50, sampling, n=1 + count % 2, ignore_eos=True)
        for count in (0, 3, 20)
    ]


def answers(engine: Engine, wanted: list[GenerationRequest], *, runs_ahead: bool = False) -> list[list[int]]:
    for request in wanted:
        engine.add(request)
    events = run_to_end(engine, runs_ahead=runs_ahead)
    return [tokens_of(events, request.request_id, choice) for request in wanted for choice in range(request.n)]


def alone(words: str) -> list[list[int]]:
    """Each request by itself, its prompt in one step, nothing cached."""
    return [
        tokens
        for request in requests()
        for tokens in answers(make_engine(parse_precision(words), prefix_cache=False), [request])
    ]


def test_by_position_the_text_is_the_same_alone_in_company_in_chunks_cached_preempted_and_run_ahead() -> None:
    expected = alone(BANDS)
    assert expected != alone("off")  # levels do change what is said
    for settings in ({}, {"max_chunk_tokens": 7}, {"num_blocks": 18, "max_chunk_tokens": 11}):
        engine = make_engine(parse_precision(BANDS), **settings)  # type: ignore[arg-type]
        assert answers(engine, requests()) == expected
        assert answers(engine, requests()) == expected  # now with what the prefix cache holds
    assert answers(make_engine(parse_precision(BANDS)), requests(), runs_ahead=True) == expected


def test_drafts_change_no_token_whatever_levels_they_are_verified_at() -> None:
    expected = alone(BANDS)
    oracle = Oracle([], seed=5)
    texts = iter(expected)
    oracle._texts = [[*request.prompt_ids, *next(texts)] for request in requests() for _ in range(request.n)]
    assert answers(make_engine(parse_precision(BANDS), speculator=oracle), requests()) == expected
    assert oracle.num_proposed > 20


def test_it_is_off_until_it_is_asked_for_and_help_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    assert EngineConfig().precision == "off"
    for command in ("chat", "serve"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        said = " ".join(capsys.readouterr().out.split())
        assert "the default, for rows of fewer bits win about a tenth in speed and leave a trace" in said


def test_load_lowers_those_that_share_a_step_and_lets_go_again() -> None:
    (first, *others), low = requests(), alone("bands:0=low")
    whole = {"max_batch_tokens": 512, "max_chunk_tokens": 512}  # all prompts in one step
    engine = make_engine(parse_precision("load:1"), prefix_cache=False, **whole)
    assert answers(engine, [first]) == alone("off")[:1]  # one stream reads all there is
    together = answers(engine, [first, *others])  # more than twice the limit
    assert together[0][:20] == low[0][:20]  # while all are there, until the first ends
    assert answers(engine, [first]) == alone("off")[:1]


@pytest.mark.parametrize(
    ("words", "files", "calm"),
    [
        (
            "battery:20",
            {"BAT0/type": "Battery", "BAT0/status": "Discharging", "BAT0/capacity": "15"},
            ("BAT0/capacity", "90"),
        ),
        ("heat:80", {"thermal_zone0/temp": "85000"}, ("thermal_zone0/temp", "40000")),
    ],
)
def test_battery_and_heat_lower_what_is_read_while_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, files: dict[str, str], calm: tuple[str, str]
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    reader = "battery_used" if words.startswith("battery") else "hottest_celsius"
    read = getattr(precision, reader)
    monkeypatch.setattr(precision, reader, lambda sequences: read(sequences, tmp_path))
    now = [0]
    engine = make_engine(parse_precision(words, clock=lambda: now[0]), prefix_cache=False)
    (request, *_) = requests()
    assert answers(engine, [request]) == alone("bands:0=low")[:1]
    (tmp_path / calm[0]).write_text(calm[1])
    assert answers(engine, [request]) == alone("bands:0=low")[:1]  # read once a second
    now[0] += 2_000_000_000
    assert answers(engine, [request]) == alone("off")[:1]
