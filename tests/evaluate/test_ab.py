"""Blind comparison: names stay hidden until the vote, a pair is decided once, and people can use the page."""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.testclient import TestClient

from factories.chat_page import BROWSER, DRIVER, open_browser
from factories.scripted_service import ScriptedService
from vivace.cli.main import main
from vivace.evaluate.ab_app import AbSettings, BlindComparison
from vivace.evaluate.votes import Vote, VoteStore

SETTINGS = AbSettings({"max_tokens": 20}, ("first question", "第二个问题"))


def comparison(store: VoteStore, *, flip: bool = False) -> BlindComparison:
    models = {"large": ScriptedService(["<b>long", " answer"]), "small": ScriptedService(["short"])}
    return BlindComparison(models, store, SETTINGS, lambda: flip)


@pytest.fixture
def store() -> Iterator[VoteStore]:
    votes = VoteStore(":memory:")
    yield votes
    votes.close()


def client(app: BlindComparison) -> TestClient:
    return TestClient(app.app())


@pytest.mark.parametrize("flip", [False, True])
def test_names_are_told_after_the_vote_and_kept_right(store: VoteStore, *, flip: bool) -> None:
    browser = client(comparison(store, flip=flip))
    pair = browser.post("/api/pair", json={}).json()
    assert set(pair) == {"id", "prompt", "left", "right"}
    assert pair["prompt"] == "first question"
    assert (pair["left"] == "short") == flip
    assert not {"large", "small"} & set(json.dumps(pair).split('"'))
    told = browser.post("/api/vote", json={"id": pair["id"], "choice": "left"}).json()
    assert told == ({"left": "small", "right": "large"} if flip else {"left": "large", "right": "small"})
    assert store.all()[0].left == told["left"]
    assert store.all()[0].score == 1.0
    results = browser.get("/api/results").json()
    assert results["standing"]["wins"] == (0 if flip else 1)
    assert len(results["ratings"]) == 2


def test_a_pair_is_decided_once_and_questions_take_turns(store: VoteStore) -> None:
    browser = client(comparison(store))
    first, second = (browser.post("/api/pair", json={}).json() for _ in range(2))
    assert [first["prompt"], second["prompt"]] == list(SETTINGS.prompts)
    assert browser.post("/api/pair", json={"prompt": "mine"}).json()["prompt"] == "mine"
    vote = {"id": first["id"], "choice": "tie"}
    assert browser.post("/api/vote", json=vote).status_code == 200
    assert browser.post("/api/vote", json=vote).status_code == 409
    assert browser.post("/api/vote", json={"id": second["id"], "choice": "up"}).status_code == 400
    assert browser.post("/api/pair", json={"prompt": 3}).status_code == 400
    assert browser.post("/api/pair", json={"prompt": "x" * 9000}).status_code == 400
    assert browser.post("/api/vote", content=b"[").status_code == 400
    assert [vote.score for vote in store.all()] == [0.5]


def test_sides_are_drawn_at_random(store: VoteStore) -> None:
    models = {"large": ScriptedService(["long"]), "small": ScriptedService(["short"])}
    browser = client(BlindComparison(models, store, SETTINGS))
    sides = {browser.post("/api/pair", json={}).json()["left"] for _ in range(40)}
    assert sides == {"long", "short"}


def test_results_are_printed_from_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = VoteStore(tmp_path / "v.sqlite")
    for _ in range(8):
        store.add(Vote("q", "m1", "m2", "x", "y", 1.0))
    store.close()
    asked = ["evaluate", "ab", "m1", "m2", "--votes", str(tmp_path / "v.sqlite"), "--results"]
    assert main(asked) == 0
    assert "m1 beats m2 in 100.0% of votes" in capsys.readouterr().out
    assert main([*asked, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["standing"]["wins"] == 8
    assert main(["evaluate", "ab", "m1", "m1"]) == 2
    assert main(["evaluate", "ab", "m1", "m2", "--results", "--votes", str(tmp_path / "none")]) == 2
    assert main(["evaluate", "ab", "m1", "m2", "--prompts", str(tmp_path / "none")]) == 2


@pytest.fixture
def page_url(store: VoteStore) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(comparison(store).app(), port=0, log_level="error"))
    started = threading.Event()

    async def serve() -> None:
        task = asyncio.ensure_future(server.serve())
        while not server.started:
            await asyncio.sleep(0)
        started.set()
        await task

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert started.wait(30)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


def test_the_page_lets_nothing_foreign_in(page_url: str) -> None:
    answer = httpx.get(page_url)
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "http" not in answer.text.split("<body>")[1]


@pytest.mark.skipif(not (BROWSER and DRIVER), reason="chromium and chromedriver are not installed")
def test_a_person_asks_votes_and_sees_results_in_two_languages(page_url: str, store: VoteStore) -> None:
    pytest.importorskip("selenium", reason="selenium is a development dependency")
    with open_browser() as driver:
        driver.get(page_url)
        wait_for(driver, "return document.documentElement.dataset.ready === 'true'")
        find(driver, "#own").send_keys("my question")
        find(driver, "#ask button[type=submit]").click()
        wait_for(driver, "return !document.querySelector('#pair').hidden")
        assert find(driver, "#prompt").text == "my question"
        assert find(driver, "#left").text == "<b>long answer"  # as text, never as markup
        assert find(driver, "#left-name").text == ""
        find(driver, "button[data-choice=right]").click()
        wait_for(driver, "return document.querySelector('#right-name').textContent === 'small'")
        assert [vote.score for vote in store.all()] == [0.0]
        find(driver, "#show-results").click()
        wait_for(driver, "return document.querySelectorAll('#ratings tr').length === 2")
        assert "large beats small in 0.0 %" in find(driver, "#standing").text
        find(driver, "#language").click()
        wait_for(driver, "return document.querySelector('#standing').textContent.includes('胜率')")
        assert find(driver, "button[data-choice=left]").text == "A 更好 1"
        assert [entry for entry in driver.get_log("browser") if "favicon" not in entry["message"]] == []


@pytest.mark.skipif(not (BROWSER and DRIVER), reason="chromium and chromedriver are not installed")
def test_a_person_votes_by_keys_alone(page_url: str, store: VoteStore) -> None:
    pytest.importorskip("selenium", reason="selenium is a development dependency")
    from selenium.webdriver import ActionChains

    with open_browser("zh-CN") as driver:
        driver.get(page_url)
        wait_for(driver, "return document.documentElement.dataset.ready === 'true'")
        find(driver, "#own").send_keys("n12 北京？\n")  # keys in the field are text
        wait_for(driver, "return !document.querySelector('#pair').hidden")
        assert (find(driver, "#prompt").text, find(driver, "#own").get_attribute("value")) == ("n12 北京？", "")
        for key, shown in (("1", "left"), ("n0", "none"), ("n2", "right")):
            ActionChains(driver).send_keys(key[0]).perform()
            if key[0] == "n":
                wait_for(driver, "return !document.querySelector('[data-choice=tie]').disabled")
                ActionChains(driver).send_keys(key[1]).perform()
            wait_for(driver, "return document.querySelector('#right-name').textContent === 'small'")
            chosen = [element.get_attribute("id") for element in driver.find_elements("css selector", ".chosen")]
            assert chosen == ([] if shown == "none" else [f"{shown}-card"])
        assert [vote.score for vote in store.all()] == [1.0, 0.5, 0.0]
        assert [vote.prompt for vote in store.all()] == ["n12 北京？", *SETTINGS.prompts]


def test_a_port_that_is_taken_is_told_before_models_are_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vivace.engine.build.build_service", lambda *_: pytest.fail("a model was loaded"))
    monkeypatch.chdir(tmp_path)
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["evaluate", "ab", "a.gguf", "b.gguf", "--port", port]) == 2
    assert capsys.readouterr().err.startswith("vivace: error: ")


def find(driver: Any, selector: str) -> Any:
    return driver.find_element("css selector", selector)


def wait_for(driver: Any, code: str) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(driver, 30, poll_frequency=0.02).until(lambda _: driver.execute_script(code))
