"""Answers that have to look like something: they do, drafted or not, and what cannot be read is refused."""

import builtins
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from factories.gguf_files import small_spec, write_gguf
from vivace import LLM
from vivace.sample.grammar import within_grammar
from vivace.sample.settings import DrawRow, DrawSettings
from vivace.speculate.policy import POLICIES, FixedPolicy
from vivace.text.grammar import MISSING, GrammarCompiler
from vivace.types.errors import EngineError, RequestError
from vivace.types.request import SamplingParams

pytest.importorskip("llguidance", reason="needs the extra grammar")

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
STRUCTURES = [
    {"json": PERSON},
    {"json": json.dumps(PERSON)},
    {"regex": "(abc){3}[0-9]{2}"},
    {"choice": ["yes", 'no "really"']},
    {"grammar": 'start: "(" item ("," item)* ")"\nitem: /[a-c]/'},
]
EXPECTED = [r"\{.*\}", r"\{.*\}", "(abc){3}[0-9]{2}", r'yes|no "really"', r"\([a-c](,[a-c])*\)"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny.gguf"
    write_gguf(path, small_spec())
    return path


@pytest.fixture(scope="module")
def llm(model: Path) -> Iterator[LLM]:
    with LLM(str(model), num_blocks=64, num_threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def compiler(llm: LLM) -> GrammarCompiler:
    return GrammarCompiler(llm.service.tokenizer, llm.service.spec.vocab_size)


@pytest.mark.parametrize(("structure", "expected"), list(zip(STRUCTURES, EXPECTED, strict=True)))
@pytest.mark.parametrize("sampling", [{"temperature": 0}, {"seed": 3}, {"seed": 4, "repetition_penalty": 1.3, "n": 2}])
def test_every_answer_that_ends_keeps_to_its_structure(
    llm: LLM, structure: dict[str, object], expected: str, sampling: dict[str, object]
) -> None:
    """The model has random weights: nothing else would make it say this."""
    answer = llm.generate("a", structured_outputs=structure, max_tokens=60, **sampling)
    for choice in answer.choices:
        if choice.finish_reason == "stop":
            assert re.fullmatch(expected, choice.text, re.DOTALL), choice.text
        else:
            assert structure.keys() & {"json", "grammar"}  # may go on for as long as it likes
    if "json" in structure:
        told = [json.loads(choice.text) for choice in answer.choices if choice.finish_reason == "stop"]
        assert all(person.keys() == {"name", "age"} and 0 <= person["age"] <= 99 for person in told)


def test_any_object_is_an_object(llm: LLM) -> None:
    text = llm.chat("hi", structured_outputs={"json_object": True}, max_tokens=20, seed=1).text
    assert text.startswith("{")


@pytest.mark.parametrize("choice", ["ngram", "self"])
def test_the_text_is_the_same_with_drafts(llm: LLM, model: Path, monkeypatch: pytest.MonkeyPatch, choice: str) -> None:
    """Drafts that the grammar refuses are cut, those that fall are taken back in it, and others are drawn within it."""
    monkeypatch.setitem(POLICIES, "measured", lambda _: FixedPolicy(4))
    asked = [
        {"structured_outputs": structure, "max_tokens": 40} | sampling
        for structure in [*STRUCTURES, {"json": {"type": "array", "items": {"enum": [1, 12, 123]}}}]
        for sampling in ({"temperature": 0}, {"seed": 5})
    ]
    plain = [llm.generate("abcabcabc", **one) for one in asked]  # type: ignore[arg-type]
    with LLM(str(model), num_blocks=64, num_threads=1, speculate=choice) as drafted:
        told = [drafted.generate("abcabcabc", **one) for one in asked]  # type: ignore[arg-type]
        stats = drafted.service.stats()
    assert [one.choices[0].token_ids for one in told] == [one.choices[0].token_ids for one in plain]
    assert 0 < stats.num_accepted_tokens < stats.num_drafted_tokens


def test_a_mask_depends_on_the_answer_alone(compiler: GrammarCompiler, llm: LLM) -> None:
    grammar = compiler.compile("json", json.dumps(PERSON), "x")
    ids = np.array(llm.service.encode('{"name":"ab","age":7}', add_special=False), dtype=np.int32)
    alone = [grammar.follow().allowed(ids[:count]) for count in range(len(ids) + 1)]
    one = grammar.follow()
    order = np.random.default_rng(0).integers(0, len(ids) + 1, 60)
    for count in order.tolist():
        assert (one.allowed(ids[:count]) == alone[count]).all()
        assert one.num_valid(ids[:count], ids[count:].tolist()) == len(ids) - count
    assert alone[-1].nonzero()[0].tolist() == sorted(llm.service.tokenizer.eos_ids)
    other = np.array(llm.service.encode('{"name":"ba"', add_special=False), dtype=np.int32)
    assert (one.allowed(other) == grammar.follow().allowed(other)).all()
    with pytest.raises(EngineError):
        one.allowed(np.array([*ids[:2], ids[0]], dtype=np.int32))
    assert one.num_valid(np.array([*ids[:2], ids[0]], dtype=np.int32), [1]) == 0
    assert (one.allowed(ids[:3]) == alone[3]).all()


def test_a_grammar_that_grows_past_all_bounds_is_the_fault_of_its_request_alone(
    compiler: GrammarCompiler, llm: LLM
) -> None:
    mask = compiler.compile("regex", "(((a{1000}){1000}){1000}){1000}", "x").follow()
    settings, free = DrawSettings(SamplingParams(), 1, num_prompt=0, grammar=mask), DrawSettings(SamplingParams(), 1)
    logits = np.zeros((2, llm.service.spec.vocab_size), dtype=np.float32)
    (letter,) = llm.service.encode("a", add_special=False)
    for length in range(200):
        answer = np.full(length, letter, dtype=np.int32)
        masked, failed = within_grammar(logits, [DrawRow(settings, answer), DrawRow(free, answer)])
        assert np.isfinite(masked[1]).all()
        if failed:
            break
    assert list(failed) == [0] and isinstance(failed[0].error, RequestError)


def test_a_row_in_which_nothing_may_be_said_fails_alone(compiler: GrammarCompiler, llm: LLM) -> None:
    width = llm.service.spec.vocab_size
    mask = compiler.compile("regex", "[0-9]{2}", "x").follow()
    settings = DrawSettings(SamplingParams(), 1, num_prompt=1, grammar=mask)
    free = DrawSettings(SamplingParams(), 1)
    logits = np.zeros((3, width), dtype=np.float32)
    logits[1, mask.allowed(np.array([], dtype=np.int32))] = -np.inf
    tokens = np.array([3], dtype=np.int32)
    masked, failed = within_grammar(
        logits, [DrawRow(settings, tokens), DrawRow(settings, tokens), DrawRow(free, tokens)]
    )
    assert list(failed) == [1] and failed[1].error is not None
    assert np.isfinite(masked[0]).sum() == mask.allowed(tokens[1:]).sum() and np.isfinite(masked[2]).all()
    assert (logits[0] == 0).all()


@pytest.mark.parametrize(
    ("structure", "param"),
    [
        ({"regex": "(a"}, "structured_outputs.regex"),
        ({"regex": ""}, "structured_outputs.regex"),
        ({"json": {"type": "frog"}}, "structured_outputs.json"),
        ({"json": {"$ref": "#"}}, "structured_outputs.json"),  # of itself and nothing else
        ({"json": 3}, "structured_outputs.json"),
        ({"json": "{"}, "structured_outputs.json"),
        ({"json_object": 1}, "structured_outputs.json_object"),
        ({"grammar": "start: missing"}, "structured_outputs.grammar"),
        ({"choice": []}, "structured_outputs.choice"),
        ({"choice": "yes"}, "structured_outputs.choice"),
        ({"regexp": "a"}, "structured_outputs"),
        ({"regex": "a", "json": {}}, "structured_outputs"),
        ({}, "structured_outputs"),
        ("a", "structured_outputs"),
    ],
)
def test_what_cannot_be_read_is_refused(llm: LLM, structure: object, param: str) -> None:
    with pytest.raises(RequestError) as refused:
        llm.generate("a", structured_outputs=structure)
    assert refused.value.param == param and refused.value.mend


def test_a_structure_ends_its_answer(llm: LLM) -> None:
    with pytest.raises(RequestError, match="ends where"):
        llm.generate("a", structured_outputs={"regex": "a"}, ignore_eos=True)


def test_a_missing_package_is_told_in_one_line(compiler: GrammarCompiler, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: object) -> object:
        if name == "llguidance":
            raise ImportError(name)
        return real(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(RequestError, match=re.escape(MISSING)) as refused:
        compiler.compile("regex", "never seen before", "x")
    assert "pip install 'vivace[grammar]'" in str(refused.value.mend)
