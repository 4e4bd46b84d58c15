"""The chat page in headless Chromium (Debian's chromium and chromium-driver), driven as its user would."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
DEADLINE_S = 30
SHIFT, CONTROL, ENTER, ESCAPE = "\ue008", "\ue009", "\ue007", "\ue00c"


@contextmanager
def open_browser(language: str = "en-GB") -> Iterator[Any]:
    """A headless Chromium that reports what its console says."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1100,800"):
        options.add_argument(argument)
    options.add_argument(f"--accept-lang={language}")
    options.add_experimental_option("prefs", {"intl.accept_languages": language})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


class Page:
    """The chat page as its user sees it, with an empty memory but for `settings` (JSON)."""

    def __init__(self, driver: Any, url: str, settings: str = "{}") -> None:
        self.driver = driver
        driver.get_log("browser")  # what earlier pages said
        driver.get(url)
        driver.execute_script("localStorage.clear(); localStorage.setItem('vivace.settings', arguments[0])", settings)
        driver.refresh()
        self.wait(lambda: self.script("return document.documentElement.dataset.ready") == "true")

    def wait(self, condition: Callable[[], object]) -> None:
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.driver, DEADLINE_S, poll_frequency=0.02).until(lambda _: condition())

    def script(self, code: str) -> Any:
        return self.driver.execute_script(code)

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def texts(self, selector: str) -> list[str]:
        """Texts of all elements that match, read in one go: the page may redraw them at any time."""
        code = "return [...document.querySelectorAll(arguments[0])].map((element) => element.innerText.trim())"
        return list(self.driver.execute_script(code, selector))

    def ask(self, text: str) -> None:
        self.find("#message").send_keys(text + ENTER)

    def wait_for_answer(self, number: int = 1) -> None:
        self.wait(lambda: len(self.texts(".turn.assistant .figures")) >= number)

    def console_errors(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
