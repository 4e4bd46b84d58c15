"""The chat page in a real browser (Debian's chromium and chromium-driver), against a scripted model."""

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from factories.chat_page import BROWSER, CONTROL, DEADLINE_S, DRIVER, ENTER, ESCAPE, SHIFT, Page, open_browser
from factories.cutting_proxy import cut_now, cutting_proxy
from factories.live_server import LiveServer, live_server
from factories.scripted_service import SCRIPT, ScriptedService
from vivace.server.config import ServerConfig

pytest.importorskip("selenium", reason="selenium is a development dependency")
pytestmark = pytest.mark.skipif(
    not (BROWSER and DRIVER),
    reason="chromium and chromedriver are not installed (apt install chromium chromium-driver)",
)

TEXT = "".join(SCRIPT)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser() as driver:
        yield driver


@pytest.fixture
def page(browser: Any, scripted_server: LiveServer) -> Iterator[Page]:
    chat = Page(browser, scripted_server.url)
    yield chat
    assert chat.console_errors() == []


def test_a_question_is_answered_with_its_figures(page: Page) -> None:
    page.ask("hello")
    page.wait_for_answer()
    assert page.texts(".turn.user .bubble") == ["hello"]
    assert page.texts(".turn.assistant .bubble") == [TEXT]
    assert f"{len(SCRIPT)} tokens" in page.find(".turn.assistant .figures").text
    assert page.find("#model").text == "scripted"
    assert page.find("#message").get_attribute("value") == ""


def test_shift_enter_starts_a_line_and_enter_sends(page: Page) -> None:
    page.find("#message").send_keys("one", SHIFT + ENTER + SHIFT, "two", ENTER)
    page.wait_for_answer()
    assert page.texts(".turn.user .bubble") == ["one\ntwo"]


def test_the_conversation_survives_a_reload_and_new_chat_forgets_it(page: Page) -> None:
    page.ask("hello")
    page.wait_for_answer()
    page.driver.refresh()
    page.wait(lambda: page.texts(".turn.assistant .bubble") == [TEXT])
    page.find("#new-chat").click()
    assert page.texts(".turn") == []
    page.driver.refresh()
    assert page.texts(".turn") == []


def test_the_language_can_be_switched_and_is_remembered(page: Page) -> None:
    assert page.find("#send").text == "Send"
    page.find("#language").click()
    assert page.find("#send").text == "发送"
    assert page.script("return document.documentElement.lang") == "zh-Hans"
    page.driver.refresh()
    assert page.find("#new-chat").text == "新对话"


def test_the_language_follows_the_browser(scripted_server: LiveServer) -> None:
    with open_browser("zh-CN,zh") as driver:
        page = Page(driver, scripted_server.url)
        assert page.find("#send").text == "发送"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_theme_can_be_chosen(page: Page, theme: str) -> None:
    page.find("#open-settings").click()
    page.find(f"#theme option[value={theme}]").click()
    assert page.script("return getComputedStyle(document.documentElement).colorScheme") == theme


def test_settings_reach_the_server(browser: Any) -> None:
    service = ScriptedService()
    with live_server(lambda: service) as server:
        page = Page(browser, server.url)
        page.find("#open-settings").click()
        for selector, text in (("#system", "Be brief."), ("#temperature", "0.3"), ("#max-tokens", "4")):
            page.find(selector).send_keys(CONTROL + "a" + CONTROL + text)
        page.find("#settings button[type=submit]").click()
        page.ask("hello")
        page.wait_for_answer(2)
        assert page.texts(".turn.assistant .figures")[1] == "The answer reached its longest length."
    request = service.requests[-1]
    assert bytes(request.prompt_ids[1:]) == b"<system>Be brief.<user>hello<assistant>"
    assert (request.sampling.temperature, request.stopping.max_tokens) == (0.3, 4)


def test_an_answer_goes_on_after_the_network_was_lost(browser: Any) -> None:
    service = ScriptedService(hold_at=3, warm_up_passes=True)
    opened: list[socket.socket] = []
    with live_server(lambda: service) as server, cutting_proxy(server.port, lambda: None, opened) as url:
        page = Page(browser, url)
        page.ask("hello")
        page.wait(lambda: page.texts(".turn.assistant .bubble") == ["Hello, wor"])
        cut_now(opened)
        page.wait(lambda: opened)  # it comes back by itself
        assert not service.cancelled.is_set()
        service.release()
        page.wait(lambda: page.texts(".turn.assistant .bubble") == [TEXT])
        page.wait(lambda: any("tokens/s" in text for text in page.texts(".turn.assistant .figures")))
        assert page.texts(".turn.assistant .problem") == []
        page.console_errors()  # the cut is one of them


@pytest.mark.parametrize("by_key", [False, True])
def test_stop_ends_the_answer_on_the_server_and_keeps_what_came(browser: Any, by_key: bool) -> None:
    service = ScriptedService(hold_at=3, warm_up_passes=True)
    with live_server(lambda: service) as server:
        page = Page(browser, server.url)
        page.ask("hello")
        page.wait(lambda: page.texts(".turn.assistant .bubble") == ["Hello, wor"])
        assert not page.find("#send").is_displayed()
        if by_key:
            page.find("#message").send_keys(ESCAPE)
        else:
            page.find("#stop").click()
        assert service.cancelled.wait(DEADLINE_S)
        page.wait(lambda: page.texts(".turn.assistant .figures") == ["Stopped."])
        assert page.texts(".turn.assistant .bubble") == ["Hello, wor"]
        assert page.find("#send").is_displayed()


def test_what_a_model_writes_is_shown_and_never_run(browser: Any) -> None:
    script = [
        "# Title\n\nSome **bold** and `co<d>e`.\n\n* one\n* two\n\n```python\nprint('<b>')\n```\n",
        "<img src=x onerror=\"document.title='pwned'\"><script>document.title='pwned'</script>\n\n",
        "[bad](javascript:alert(1)) [good](https://example.org/a)\n\n> quoted\n\n3. three\n4. four\n",
    ]
    with live_server(lambda: ScriptedService(script)) as server:
        page = Page(browser, server.url)
        page.ask("hello")
        page.wait_for_answer()
        bubble = ".turn.assistant .bubble"
        assert page.texts(f"{bubble} h3") == ["Title"]
        assert page.texts(f"{bubble} strong") == ["bold"]
        assert page.texts(f"{bubble} li") == ["one", "two", "three", "four"]
        assert page.texts(f"{bubble} :not(pre) > code") == ["co<d>e"]
        assert page.texts(f"{bubble} pre code") == ["print('<b>')"]
        assert page.texts(f"{bubble} blockquote") == ["quoted"]
        links = page.driver.find_elements("css selector", f"{bubble} a")
        assert [link.get_attribute("href") for link in links] == ["https://example.org/a"]
        assert page.driver.find_elements("css selector", f"{bubble} img, {bubble} script") == []
        assert "onerror" in page.find(bubble).text
        assert page.driver.title == "vivace"


def test_an_error_is_told_and_the_next_question_works(browser: Any) -> None:
    with live_server(ScriptedService) as server:
        page = Page(browser, server.url)
        page.ask("x" * 600)
        page.wait(lambda: any("512" in text for text in page.texts(".turn.assistant .problem")))
        page.ask("hello")
        page.wait_for_answer()
        assert page.texts(".turn.assistant .bubble")[-1] == TEXT


def test_a_key_can_be_given_when_the_server_asks_for_one(browser: Any) -> None:
    with live_server(ScriptedService, ServerConfig(port=0, drain_s=1, api_key="sesam")) as server:
        page = Page(browser, server.url)
        page.ask("hello")
        page.wait(lambda: any("API key" in text for text in page.texts(".turn.assistant .problem")))
        page.find("#open-settings").click()
        page.find("#api-key").send_keys("sesam")
        page.find("#settings button[type=submit]").click()
        page.ask("hello")
        page.wait_for_answer()
        assert page.texts(".turn.assistant .bubble")[-1] == TEXT


def test_the_page_waits_for_a_model_that_loads(browser: Any) -> None:
    may_finish = threading.Event()

    def load_slowly() -> ScriptedService:
        assert may_finish.wait(DEADLINE_S)
        return ScriptedService()

    with live_server(load_slowly, wait=False) as server:
        browser.get(server.url)
        chat = object.__new__(Page)
        chat.driver = browser
        chat.wait(lambda: chat.find("#model").text.startswith("The model is loading"))
        may_finish.set()
        chat.wait(lambda: chat.find("#model").text == "scripted")


def test_everything_that_can_be_pressed_has_a_name(page: Page) -> None:
    unnamed = page.script(
        "return [...document.querySelectorAll('button, input, textarea, select')].filter((field) =>"
        " !(field.textContent.trim() || field.labels?.length || field.getAttribute('aria-label'))).map((f) => f.id)"
    )
    assert unnamed == []


def test_typing_the_next_question_tells_the_server_once(browser: Any) -> None:
    service = ScriptedService(warm_up_passes=True)
    with live_server(lambda: service) as server:
        page = Page(browser, server.url)
        page.find("#message").send_keys("hel")
        page.find("#message").send_keys("lo", ENTER)
        page.wait_for_answer()
        assert service.hints == [], "a conversation that has not begun has no history"
        page.find("#message").send_keys("and")
        page.find("#message").send_keys(" then")
        page.wait(lambda: len(service.hints) == 1)
        assert [message.content for message in service.hints[0]] == ["hello", TEXT]
        page.find("#new-chat").click()
