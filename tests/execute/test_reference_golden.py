"""The reference executor continues prompts exactly as Hugging Face transformers does in FP32.

The expected tokens come from tools/make_golden_tokens.py. No step of theirs is a near tie (a gap between the two best
logits under 1e-4, where sound FP32 implementations may differ), so equality is asked for, token for token.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from factories import hf_checkpoints
from factories.greedy import blocks_for, greedy_continuations
from vivace.execute.reference import ReferenceExecutor
from vivace.files.open import open_model
from vivace.graph.build import build_graph
from vivace.graph.passes import fuse_add_norm, fuse_linears

GOLDEN = Path(__file__).parents[1] / "golden"
TINY: dict[str, Any] = json.loads((GOLDEN / "tiny.json").read_text())["cases"]
REAL = {"smollm2-135m": "smollm2_path", "gemma3-270m": "gemma3_path"}
FEW = (0, 6, 10, 14)  # English, Chinese, code, chat


def executor_of(path: Path, prompts: list[list[int]], num_tokens: int, *, fused: bool = False) -> ReferenceExecutor:
    model = open_model(path)
    graph = build_graph(model.spec)
    if fused:
        graph = fuse_add_norm(fuse_linears(graph))
    num_blocks = len(prompts) * blocks_for(max(map(len, prompts)) + num_tokens)
    return ReferenceExecutor(graph, model.weights, num_blocks=num_blocks)


@pytest.mark.parametrize("file", ["tiny.json", *(f"{name}.json" for name in REAL)])
def test_no_expected_token_is_a_near_tie(file: str) -> None:
    content = json.loads((GOLDEN / file).read_text())
    entries = content["prompts"] if "prompts" in content else [e for case in content["cases"].values() for e in case]
    assert all(entry["near_ties"] == {} and entry["smallest_gap"] > 1e-4 for entry in entries)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("case", TINY)
def test_random_checkpoints_continue_as_in_transformers(tmp_path: Path, case: str, fused: bool) -> None:
    prompts = [entry["prompt_ids"] for entry in TINY[case]]
    assert prompts == hf_checkpoints.prompts(case)
    executor = executor_of(hf_checkpoints.write_checkpoint(tmp_path, case), prompts, 64, fused=fused)
    found, first_logits = greedy_continuations(executor, prompts, 64)
    for entry, logits in zip(TINY[case], first_logits, strict=True):
        np.testing.assert_allclose(logits[:8], entry["first_logits"], atol=1e-4)
    assert found == [entry["expected_ids"] for entry in TINY[case]]


def check_real(name: str, request: pytest.FixtureRequest, chosen: tuple[int, ...], num_tokens: int) -> None:
    entries = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))["prompts"]
    assert len(entries) == 20
    entries = [entries[i] for i in chosen]
    prompts = [entry["prompt_ids"] for entry in entries]
    executor = executor_of(request.getfixturevalue(REAL[name]), prompts, num_tokens)
    found, _ = greedy_continuations(executor, prompts, num_tokens)
    assert found == [entry["expected_ids"][:num_tokens] for entry in entries]


@pytest.mark.parametrize("name", REAL)
def test_real_models_start_as_in_transformers(name: str, request: pytest.FixtureRequest) -> None:
    check_real(name, request, FEW, 16)


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_real_models_continue_twenty_prompts_as_in_transformers(name: str, request: pytest.FixtureRequest) -> None:
    check_real(name, request, tuple(range(20)), 64)
