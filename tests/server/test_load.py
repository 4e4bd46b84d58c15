"""Steps against high load: taken in order, taken back in reverse, never to and fro; each does what it says."""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factories.babbling_service import babbling_service
from factories.live_server import DEADLINE_S, LiveServer, live_server, read_numbered
from factories.scripted_service import SCRIPT, ScriptedService
from vivace.cli.main import main
from vivace.server.config import ServerConfig
from vivace.server.load_control import LoadControl
from vivace.server.load_steps import Change, LoadConfig, LoadSteps, Step, parse_steps
from vivace.server.loading import LoadingModel
from vivace.types.errors import ConfigError

ALL = parse_steps("background,max_tokens=5,speculation,kv_window=64,model=small")
PATH = "/v1/chat/completions"
HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
looks = st.lists(st.tuples(st.floats(0.01, 5.0), st.integers(0, 12)), max_size=80)


@given(looks)
def test_steps_are_taken_in_order_and_taken_back_in_reverse(looked: list[tuple[float, int]]) -> None:
    steps, now_s, stack = LoadSteps(LoadConfig(ALL, up_after_s=2.0, down_after_s=10.0)), 0.0, list[Step]()
    for pause_s, num_in_work in looked:
        now_s += pause_s
        change = steps.note(now_s, num_in_work)
        if change is not None and change.is_taken:
            assert num_in_work >= 8 and change.step == ALL[len(stack)]
            stack.append(change.step)
        elif change is not None:
            assert num_in_work <= 4 and change.step == stack.pop()
        assert steps.taken == tuple(stack)


@given(looks)
def test_steps_never_flap(looked: list[tuple[float, int]]) -> None:
    """A change needs load on its side for all of its time, so two of them are never closer than that."""
    steps, now_s, last_s = LoadSteps(LoadConfig(ALL, up_after_s=2.0, down_after_s=10.0)), 0.0, float("-inf")
    on_side_since: dict[int, float] = {}
    for pause_s, num_in_work in looked:
        now_s += pause_s
        side = 1 if num_in_work >= 8 else -1 if num_in_work <= 4 else 0
        on_side_since = {side: on_side_since.get(side, now_s)}
        change = steps.note(now_s, num_in_work)
        if change is not None:
            wait_s = 2.0 if change.is_taken else 10.0
            assert now_s - on_side_since[side] >= wait_s and now_s - last_s >= wait_s
            last_s = now_s


def test_load_that_lasts_takes_every_step_and_load_that_is_over_none() -> None:
    steps = LoadSteps(LoadConfig(ALL, up_after_s=2.0, down_after_s=10.0))
    changes = [steps.note(now_s, 9 if now_s < 20 else 0) for now_s in range(100)]
    told = [change for change in changes if change is not None]
    assert [change.step for change in told] == [*ALL, *reversed(ALL)]
    assert steps.taken == ()


@pytest.mark.parametrize(
    "wrong",
    ["tea", "", "background=1", "max_tokens", "max_tokens=0", "max_tokens=x", "kv_window=0", "model", "speculation=on"],
)
def test_steps_that_can_never_work_are_refused(wrong: str) -> None:
    with pytest.raises(ConfigError):
        parse_steps(wrong)


def test_numbers_and_doubles_that_can_never_work_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for fields in ({"at": 0}, {"back_share": 1.0}, {"up_after_s": 0.0}, {"down_after_s": -1.0}):
        with pytest.raises(ConfigError):
            LoadConfig(ALL, **fields)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="twice"):
        LoadConfig((*ALL, Step("background")))
    assert main(["serve", "--degrade", "speculation"]) == 2
    assert main(["serve", "--degrade", "background,tea"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 2 and "nothing to pause" in said and "'tea'" in said


class Loaded:
    """A server with all steps, whose load is what the test says."""

    def __init__(self, server: LiveServer, main_service: ScriptedService, small: ScriptedService) -> None:
        self.server, self.main, self.small = server, main_service, small


class CountedService(ScriptedService):
    """Says that so many answers are in work."""

    num_in_work = 0

    def stats(self) -> Any:
        return replace(super().stats(), running_sequences=self.num_in_work, waiting_sequences=0)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loaded]:
    monkeypatch.setattr("vivace.server.load_control.LOOK_S", 0.01)
    big, small = CountedService(), CountedService()
    small.name = "small"
    small.script = ("small ", "words")
    config = ServerConfig(port=0, drain_s=1, load=LoadConfig(ALL, up_after_s=0.02, down_after_s=0.02))
    stand_in = LoadingModel(lambda: small)  # type: ignore[arg-type,return-value]
    original = LoadingModel.__init__

    def with_stand_in(self: LoadingModel, load: Any, on_settled: Any = lambda model: None) -> None:
        original(self, load, on_settled, stand_in)

    monkeypatch.setattr(LoadingModel, "__init__", with_stand_in)
    with live_server(lambda: big, config) as server:
        yield Loaded(server, big, small)


def wait_for(client: Any, line: str) -> str:
    """The metrics, once they hold a line."""
    deadline_s = time.monotonic() + DEADLINE_S
    while line not in (text := client.get("/metrics").text):
        assert time.monotonic() < deadline_s
    return str(text)


def test_every_step_does_what_it_says_is_told_and_is_undone(loaded: Loaded) -> None:
    with loaded.server.client() as client:
        assert wait_for(client, 'vivace_load_step{step="model"} 0.0')
        loaded.main.num_in_work = 9
        wait_for(client, 'vivace_load_step{step="model"} 1.0')
        assert (loaded.main.has_background, loaded.main.speculates) == (False, False)
        answer = client.post(PATH, json={**HELLO, "stream": True, "stream_options": {"events": True}})
        chunks = [data for _, data in read_numbered(answer.text) if isinstance(data, dict)]
        told = next(data["steps"] for data in chunks if "steps" in data)
        assert told == ["background", "max_tokens", "speculation", "kv_window", "model"]
        assert next(data["model"] for data in chunks if "model" in data) == "small"
        request = loaded.small.requests[-1]
        assert (request.stopping.max_tokens, request.kv_policy) == (5, "window:64")
        hint = client.post("/v1/hints", json=HELLO)
        assert hint.json()["taken"] is False
        ids = client.post(PATH, json={**HELLO, "logit_bias": {"5": 1}}).json()  # ids of the model that was meant
        assert (ids["model"], ids["choices"][0]["finish_reason"]) == ("scripted", "length")
        whole = client.post("/v1/completions", json={"prompt": "a", "max_tokens": 2}).json()
        assert (whole["model"], whole["choices"][0]["text"]) == ("small", "small words")
        loaded.main.num_in_work = 0
        metrics = wait_for(client, 'vivace_load_changes_total{step="background",what="taken_back"} 1.0')
        assert 'vivace_load_step{step="model"} 0.0' in metrics
        assert (loaded.main.has_background, loaded.main.speculates) == (True, True)
        whole = client.post(PATH, json=HELLO).json()
        assert (whole["model"], whole["choices"][0]["message"]["content"]) == ("scripted", "".join(SCRIPT))
        assert client.post("/v1/hints", json=HELLO).json()["taken"] is True


def test_running_streams_are_told_of_every_step_and_go_on_as_they_began(loaded: Loaded) -> None:
    loaded.main._hold_at = 6
    fields = {**HELLO, "stream": True, "stream_options": {"events": True}}
    client, other = loaded.server.client(), loaded.server.client()
    with client, other, client.stream("POST", PATH, json=fields) as response:
        pieces = response.iter_raw()
        body = next(pieces)
        loaded.main.num_in_work = 9
        wait_for(other, 'vivace_load_step{step="model"} 1.0')
        loaded.main.release()
        body += b"".join(pieces)
    chunks = [data for _, data in read_numbered(body.decode()) if isinstance(data, dict)]
    told = [(data["step"], data.get("value")) for data in chunks if data.get("is_taken")]
    assert told == [(step.kind, step.value or None) for step in ALL]
    text = "".join(data["choices"][0]["delta"].get("content", "") for data in chunks if data.get("choices"))
    assert text == "".join(SCRIPT)


def test_what_is_eased_is_what_the_engine_does() -> None:
    with contextlib.closing(babbling_service()) as service:
        control = LoadControl(LoadConfig(parse_steps("kv_window=64,max_tokens=40")), LoadingModel(lambda: service))
        plain = service.admit(service.encode("hello"), {"temperature": 0, "max_tokens": 60})
        assert control.eased(plain, service) == plain
        text = service.complete(plain).text
        control._do(Change(Step("max_tokens", "40"), True))
        short = control.eased(replace(plain, request_id="short"), service)
        answer = service.complete(short)
        assert (answer.usage.completion_tokens, answer.choices[0].finish_reason) == (40, "length")
        assert text.startswith(answer.text)
        control._do(Change(Step("kv_window", "64"), True))
        assert service.complete(control.eased(replace(plain, request_id="window"), service)).text  # a policy it knows
        own = replace(plain, kv_policy="full")
        assert control.eased(own, service).kv_policy == "full"
        unbounded = replace(plain, stopping=replace(plain.stopping, max_tokens=None))
        assert control.eased(unbounded, service).stopping.max_tokens == 40


@pytest.mark.slow
def test_a_smaller_real_model_stands_in_under_real_load(smollm2_path: Any) -> None:
    """Two real engines in one process: the stand-in answers while the big one is busy."""
    from vivace.engine.build import EngineConfig, build_service

    def load() -> Any:
        return build_service(str(smollm2_path), EngineConfig(context_length=512, num_threads=1))

    config = LoadConfig(parse_steps("model=small"), at=2, up_after_s=0.05, down_after_s=0.05)

    def load_small() -> Any:
        small = load()
        small.name = "small"
        return small

    stand_in = LoadingModel(load_small)
    model = LoadingModel(load, stand_in=stand_in)
    model.start()
    model.join(DEADLINE_S * 4)
    control = LoadControl(config, model)
    for now_s in (0.0, 1.0):
        control._steps.note(now_s, 9)
    control._do(Change(config.steps[0], True))
    wire: Any = type("Wire", (), {"logit_bias": None, "stop_token_ids": None})

    async def scenario() -> tuple[str, str]:
        given = {"temperature": 0, "max_tokens": 8}
        service, request = await control.admit(lambda each: each.admit(each.encode("Once upon"), given), wire)
        return service.name, (await service.acomplete(request)).text

    name, text = asyncio.run(scenario())
    assert name == "small" and text
    model.close()
