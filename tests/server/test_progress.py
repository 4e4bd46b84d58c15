"""What a client that asked for events is told before the first token."""

import pytest

from factories.live_server import live_server, read_events
from factories.scripted_service import SCRIPT, ScriptedService
from vivace.server import progress, streams
from vivace.types.place import RequestPlace

PATH = "/v1/chat/completions"
ASK = {"messages": [{"role": "user", "content": "hello"}], "stream": True, "stream_options": {"events": True}}
PLACES = [
    RequestPlace(2, None, 40, 0),
    RequestPlace(1, 0.52, 40, 0),
    RequestPlace(1, 0.31, 40, 0),
    RequestPlace(0, 0.0, 40, 16),
    RequestPlace(0, 0.0, 40, 16),
    RequestPlace(0, 0.0, 40, 32),
]


@pytest.mark.parametrize("asked", [True, False])
def test_the_queue_and_the_prompt_are_told_when_something_has_changed(
    monkeypatch: pytest.MonkeyPatch, asked: bool
) -> None:
    monkeypatch.setattr(progress, "LOOK_S", 0.001)
    service = ScriptedService(hold_at=0, warm_up_passes=True)

    async def place(request_id: str) -> RequestPlace | None:
        if service.places:
            return service.places.pop(0)
        service.release()
        return None

    monkeypatch.setattr(service, "place", place)
    service.places = list(PLACES)
    with live_server(lambda: service) as server, server.client() as client:
        if not asked:
            service.release()
        body = {**ASK, "stream_options": {"events": asked}}
        response = client.post(PATH, json=body)
    events = [event for event in read_events(response) if isinstance(event, dict)]
    text = "".join(event["choices"][0]["delta"].get("content", "") for event in events if event.get("choices"))
    assert text == "".join(SCRIPT)
    notices = [event for event in events if event.keys() & {"position", "prompt_tokens"}]
    assert notices == asked * [
        {"position": 2, "expected_wait_s": None},
        {"position": 1, "expected_wait_s": 0.5},
        {"prompt_tokens": 40, "computed_tokens": 16},
        {"prompt_tokens": 40, "computed_tokens": 32},
    ]
    assert ("event: queued\n" in response.text, "event: prefill\n" in response.text) == (asked, asked)


def test_a_comment_keeps_the_connection_while_nothing_else_is_to_be_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "KEEP_ALIVE_S", 0.01)
    service = ScriptedService(hold_at=0, warm_up_passes=True)
    with live_server(lambda: service) as server, server.client() as client:
        with client.stream("POST", PATH, json={**ASK, "stream_options": None}) as response:
            pieces = response.iter_text()
            assert next(pieces).startswith(": still here\n\n")
            service.release()
            body = "".join(pieces)
        assert body.endswith("data: [DONE]\n\n")


def test_a_slow_token_is_told_once_for_each_wait() -> None:
    service = ScriptedService(hold_at=2, warm_up_passes=True)
    options = {"events": True, "soft_timeout_s": 0.05}
    body = ""
    with live_server(lambda: service) as server, server.client() as client:
        asked = client.stream("POST", PATH, json={**ASK, "stream_options": options})
        with asked as response:
            for piece in response.iter_text():
                body += piece
                if "event: slow" in body:
                    service.release()
    assert "waited_s" in body
    assert body.count("event: end\n") == 1
