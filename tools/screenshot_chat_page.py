"""Take the README's picture of the chat page: the default model, two questions, greedy.

Needs chromium and chromium-driver (apt) and the development dependencies.

    .venv/bin/python tools/screenshot_chat_page.py docs/images/chat.png
"""

import json
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
sys.path[:0] = [str(REPOSITORY / "tests")]

QUESTIONS = ("What is the capital of France?", "Write a Python function that reverses a string.")
SETTINGS = {"temperature": 0, "maxTokens": 400, "theme": "light"}
WIDTH, HEIGHT = 1000, 820


def main() -> None:
    """Serve, ask, and save the picture under the name in the first argument."""
    from factories.chat_page import Page, open_browser
    from factories.live_server import live_server
    from vivace.engine.build import build_service

    with live_server(build_service) as server, open_browser() as driver:
        driver.set_window_size(WIDTH, HEIGHT)
        page = Page(driver, server.url, settings=json.dumps(SETTINGS))
        for number, question in enumerate(QUESTIONS, start=1):
            page.ask(question)
            page.wait_for_answer(number)
        driver.execute_script("document.activeElement.blur()")
        driver.save_screenshot(sys.argv[1])
        print("\n\n".join(page.texts(".turn")))


if __name__ == "__main__":
    main()
