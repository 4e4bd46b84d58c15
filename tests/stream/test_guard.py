"""Guards: what is not allowed never leaves, a regenerated answer is the same after a restart, checks may fail."""

import asyncio
import json
import re
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from statistics import median
from typing import Any, TypeVar

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from factories.drawn_answer import DrawnAnswer
from vivace.stream.journal import Progress
from vivace.stream.safety.check_option import parse_check
from vivace.stream.safety.checks import Ask, Check, CheckConfig, Passage
from vivace.stream.safety.guard import Guard, GuardPlan
from vivace.stream.safety.screen import ACTIONS, SafetyConfig, SafetyRules
from vivace.stream.source import ChoiceSource
from vivace.stream.work import Notice
from vivace.types.answer import AnswerChunk
from vivace.types.errors import ConfigError
from vivace.types.request import GenerationRequest, SamplingParams

ResultT = TypeVar("ResultT")
VOCABULARY = ("fine ", "ba", "d", "d ", "敏", "感", " so ", "。", "4111 1111 ", "1111 1111", "!\n", "", "好 ", "nice. ")
TERMS = ("bad", "敏感")
FORBIDDEN = re.compile(r"\bbad\b|敏感|4111 1111 1111 1111(?!\d)")
CLASSIFIER = "factories.classifiers:"


def rules(action: str, **more: Any) -> SafetyRules:
    return SafetyRules(SafetyConfig(TERMS, ("card",), action=action, **more))


def tell(
    answer: DrawnAnswer, plan: GuardPlan, seed: int = 0, kept: Progress | None = None
) -> tuple[list[AnswerChunk], list[Notice]]:
    """What a guard tells of an answer."""

    async def scenario() -> list[AnswerChunk | Notice]:
        request = GenerationRequest("r", (1, 2), SamplingParams(seed=seed))
        source = ChoiceSource(request, 0, answer.generator, kept)
        return [item async for item in Guard(source, plan, kept.num_chars if kept else 0).chunks()]

    items = asyncio.run(scenario()) if plan.checks else at_once(scenario())
    return [item for item in items if isinstance(item, AnswerChunk)], [i for i in items if isinstance(i, Notice)]


def at_once(scenario: Coroutine[Any, Any, ResultT]) -> ResultT:
    """Run what never has to wait: many times faster than an event loop each."""
    try:
        scenario.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    raise AssertionError("it waits for something")


def text_of(chunks: list[AnswerChunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


@given(seed=st.integers(0, 10**6), length=st.integers(1, 40), cut=st.integers(0, 40), every=st.booleans())
@settings(max_examples=60)
def test_a_regenerated_answer_is_clean_and_the_same_after_a_restart(
    seed: int, length: int, cut: int, every: bool
) -> None:
    check = Check(CheckConfig("classifier", CLASSIFIER + "of_text", every="token" if every else "sentence"))
    for checks in ((), (check,)):
        plan = GuardPlan(rules("regenerate"), checks)
        chunks, notices = tell(DrawnAnswer(VOCABULARY, length), plan, seed)
        text = text_of(chunks)
        assert not FORBIDDEN.search(text)
        assert chunks[-1].finish_reason in ("stop", "content_filter")
        assert chunks[-1].usage is not None
        shown = 0
        for notice in notices:  # what was shown stays: a rollback never reaches behind it
            assert notice.name == "rollback" and shown <= int(str(notice.told["offset"])) <= len(text)
            shown = int(str(notice.told["offset"]))
        told = [chunk for chunk in chunks if chunk.token_ids][:cut]
        kept = Progress(
            len(text_of(told)),
            [token_id for chunk in told for token_id in chunk.token_ids],
            attempt=told[-1].attempt if told else 0,
        )
        again, _ = tell(DrawnAnswer(VOCABULARY, length), plan, seed, kept)
        assert text_of(again) == text
        assert again[-1].finish_reason == chunks[-1].finish_reason


@pytest.mark.parametrize("wanted", [300, pytest.param(5000, marks=pytest.mark.slow)])
def test_violations_are_drawn_away_from_and_none_leaks(wanted: int) -> None:
    num_found, delays, seed, plan = 0, list[int](), 0, GuardPlan(rules("regenerate"))
    while num_found < wanted:
        seed += 1
        answer = DrawnAnswer(VOCABULARY, 120)
        chunks, notices = tell(answer, plan, seed)
        num_found += len(notices)
        assert not FORBIDDEN.search(text_of(chunks))
        delays += _delays(answer, plan, seed)
    assert median(delays) <= 2


def _delays(answer: DrawnAnswer, plan: GuardPlan, seed: int) -> list[int]:
    """For each token that was shown: how many were drawn after it before it was."""

    async def scenario() -> list[int]:
        request = GenerationRequest("r", (1, 2), SamplingParams(seed=seed))
        source = ChoiceSource(request, 0, answer.generator)
        found, num_shown = [], 0
        async for item in Guard(source, plan).chunks():
            if isinstance(item, AnswerChunk) and item.token_ids:
                for _ in item.token_ids:
                    num_shown += 1
                    found.append(len(source.token_ids) - num_shown)
        return found

    return at_once(scenario())


@given(
    seed=st.integers(0, 10**6),
    terms=st.lists(st.lists(st.sampled_from("ab1敏感-"), min_size=1, max_size=4).map("".join), min_size=1, max_size=4),
    checked=st.booleans(),
    action=st.sampled_from(ACTIONS),
)
@settings(max_examples=120, deadline=None)
@example(39, ["bad"], True, "mask")
def test_what_is_shown_passes_the_filter_at_every_token(
    seed: int, terms: list[str], checked: bool, action: str
) -> None:
    vocabulary = ("a", "b", "1", "敏", "感", "-", " ", "13812345678", "ab", "bad", "x", ". ", "bad. ")
    checks = [Check(CheckConfig("classifier", CLASSIFIER + "of_text", every="token"))] if checked else []
    plan = GuardPlan(SafetyRules(SafetyConfig(tuple(terms), ("phone_cn",), action)), checks)
    chunks, _ = tell(DrawnAnswer(vocabulary, 24), plan, seed)
    shown = ""
    for chunk in chunks:
        shown += chunk.text
        assert not plan.rules.holds_match(shown)


def test_an_answer_that_can_say_nothing_else_ends() -> None:
    chunks, notices = tell(DrawnAnswer(("bad ",), 5), GuardPlan(rules("regenerate")))
    assert (text_of(chunks), chunks[-1].finish_reason) == ("", "content_filter")
    chunks, notices = tell(
        DrawnAnswer(("bad ", "bad, ", "BAD ", "bad\n", "bad. ", "敏感"), 5), GuardPlan(rules("regenerate"))
    )
    assert (text_of(chunks), chunks[-1].finish_reason, len(notices)) == ("", "content_filter", 4)


@pytest.mark.parametrize("every", ["token", "sentence"])
@pytest.mark.parametrize("function", ["of_text", "of_text_later", "of_tokens"])
@pytest.mark.parametrize("action", ["stop", "mask", "replace", "regenerate"])
def test_classifiers_decide_what_is_shown(action: str, function: str, every: str) -> None:
    kind = "token_classifier" if function == "of_tokens" else "classifier"
    check = Check(CheckConfig(kind, CLASSIFIER + function, every=every))
    plan = GuardPlan(SafetyRules(SafetyConfig(action=action)), [check])
    vocabulary = ("one. ", "bad. ", "two! ", "四。")
    reasons = set()
    for seed in range(20):
        chunks, notices = tell(DrawnAnswer(vocabulary, 12), plan, seed)
        assert "bad" not in text_of(chunks)
        reasons.add(chunks[-1].finish_reason)
        assert bool(notices) <= (action == "regenerate")
    assert "stop" in reasons or action == "stop"


@pytest.mark.parametrize("fail_open", [False, True])
@pytest.mark.parametrize("kind", ["classifier", "judge", "judge that waits", "external"])
def test_a_check_that_fails_is_closed_or_open_as_set(kind: str, fail_open: bool) -> None:
    async def never(question: str) -> str:
        await asyncio.Event().wait()
        return ""

    async def mumbles(question: str) -> str:
        return "perhaps"

    target = {"classifier": CLASSIFIER + "broken", "external": "http://127.0.0.1:9/none"}.get(kind, "local")
    config = CheckConfig(kind.split(maxsplit=1)[0], target, timeout_s=0.05, fail_open=fail_open)
    check = Check(config, never if "waits" in kind else mumbles)
    plan = GuardPlan(SafetyRules(SafetyConfig(action="stop")), [check])
    chunks, _ = tell(DrawnAnswer(("one. ", "two. "), 4), plan)
    assert chunks[-1].finish_reason == ("stop" if fail_open else "content_filter")
    assert bool(text_of(chunks)) is fail_open
    assert check.num_failures > 0


@contextmanager
def listener(answers: Any, header: str = "") -> Iterator[tuple[str, list[Any]]]:
    """The URL of a service that answers every POST with `answers(body)`, and the bodies it got.

    The value of `header` is put into the body, under its name.
    """
    bodies: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            bodies[-1] |= {header: self.headers[header]} if header else {}
            answer = json.dumps(answers(bodies[-1])).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", bodies
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def asked(config: CheckConfig, text: str, start: int = 0, ask: Ask | None = None) -> bool:
    return asyncio.run(Check(config, ask).allows(Passage(text, start)))


def test_a_service_elsewhere_is_asked_over_http() -> None:
    with listener(lambda body: {"allowed": "bad" not in body["text"][body["start"] :]}) as (url, bodies):
        config = CheckConfig("external", url)
        assert asked(config, "bad fine", 4) and not asked(config, "fine bad")
        assert bodies[0] == {"text": "bad fine", "start": 4}


def test_a_key_from_the_environment_goes_along_and_is_never_told(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[str | None] = []

    def answer(body: Any) -> Any:
        heard.append(body["authorization"])
        return {"allowed": True} if len(heard) == 1 else {}

    with listener(answer, header="authorization") as (url, _):
        line = f"external={url},header=Authorization: Bearer ${{CHECK_KEY}},header=x-team: a,timeout=5"
        config = parse_check(line, {"CHECK_KEY": "s3cret"})
        assert config.headers == {"Authorization": "Bearer s3cret", "x-team": "a"}
        assert asked(config, "fine") and not asked(config, "fails")
    assert heard == ["Bearer s3cret"] * 2
    assert "s3cret" not in repr(config) + caplog.text and "failed" in caplog.text
    for wrong in (
        "external=x,header=a: ${NONE}",
        "external=x,header=no name",
        "external=x,header=a: ${KEY}",
        "classifier=m:f,header=a: b",
    ):
        with pytest.raises(ConfigError) as refused:
            parse_check(wrong, {"KEY": "s3cret\r\nb: c"})
        assert "s3cret" not in str(refused.value)


def test_a_judge_is_asked_as_a_chat() -> None:
    def answer(body: Any) -> Any:
        said = "BLOCKED" if "bad" in body["messages"][0]["content"] else "Allowed."
        return {"choices": [{"message": {"content": said}}]}

    async def local(question: str) -> str:
        return " blocked" if "bad" in question else "ALLOWED"

    with listener(answer) as (url, bodies):
        config = CheckConfig("judge", f"{url}/", policy="rude words", model="guard")
        assert asked(config, "fine") and not asked(config, "bad")
        assert bodies[0]["model"] == "guard" and "rude words" in bodies[0]["messages"][0]["content"]
    assert asked(CheckConfig("judge", "local"), "fine", ask=local)
    assert not asked(CheckConfig("judge", "local"), "bad", ask=local)


def test_a_check_is_read_from_one_line() -> None:
    line = "judge=http://host/v1,every=token,timeout=2,fail=open,model=m,policy=no a, no b"
    config = CheckConfig("judge", "http://host/v1", "token", 2.0, fail_open=True, model="m", policy="no a, no b")
    assert parse_check(line) == config
    for wrong in (
        "",
        "guess=x",
        "external",
        "external=x,fail=maybe",
        "external=x,timeout=soon",
        "external=x,every=page",
    ):
        with pytest.raises(ConfigError):
            parse_check(wrong)
    for target in (
        "nowhere:f",
        "factories.classifiers:none",
        "factories.classifiers",
        "factories.classifiers:BAD_TOKEN",
    ):
        with pytest.raises(ConfigError):
            Check(CheckConfig("classifier", target))
