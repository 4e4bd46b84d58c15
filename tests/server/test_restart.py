"""kill -9 in the middle of an answer: the restarted server gives the rest, and the text is the same."""

import random
import signal
from pathlib import Path

import pytest

from factories.killable import killable, read_until, scripted, text_of
from factories.live_server import DEADLINE_S, read_numbered
from factories.scripted_service import SCRIPT

PATH = "/v1/chat/completions"
ASK = {
    "messages": [{"role": "user", "content": "Tell me a story."}],
    "stream": True,
    "stream_options": {"on_disconnect": "keep", "include_usage": True},
}


@pytest.mark.parametrize("hold_at", [0, 1, 5, len(SCRIPT) - 1])
def test_a_killed_server_goes_on_where_it_was(tmp_path: Path, hold_at: int) -> None:
    stream_file = tmp_path / "streams.db"
    seen = hold_at + 1 if hold_at else 0  # the role, then a piece each
    command = scripted(hold_at=hold_at + (hold_at == 0))
    with killable(command, stream_file) as (process, client), client.stream("POST", PATH, json=ASK) as response:
        stream_id = response.headers["x-stream-id"]
        head = read_numbered(read_until(response, seen)) if seen else []
        process.send_signal(signal.SIGKILL)
        process.wait(DEADLINE_S)
    with killable(scripted(), stream_file) as (_, client):
        resumed = client.get(f"/v1/streams/{stream_id}", headers={"last-event-id": str(seen)})
        rest = read_numbered(resumed.text)
        again = read_numbered(client.get(f"/v1/streams/{stream_id}").text)
    assert text_of(head) + text_of(rest) == "".join(SCRIPT)
    numbers = [number for number, _ in head + rest]
    assert numbers == [*range(1, len(numbers)), None]
    assert again == head + rest
    assert len({event["id"] for _, event in again if isinstance(event, dict)}) == 1
    with killable(scripted(), stream_file) as (_, client):  # an ended stream survives a restart as well
        assert read_numbered(client.get(f"/v1/streams/{stream_id}").text) == again


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_twenty_kills_at_random_moments_leave_the_text_as_it_was(tmp_path: Path, seed: int) -> None:
    rng, stream_file, num_kills = random.Random(seed), tmp_path / "streams.db", 20
    script = [f"{number} 你好🎉, " for number in range(8 * num_kills)]
    told: list[tuple[int | None, object]] = []
    stream_id = ""
    for kill in range(num_kills):
        hold_at = 8 * kill + rng.randint(1, 7)
        wanted = rng.randint(0, max(0, hold_at + 1 - len(told)))  # what comes later may be written, and not seen
        with killable(scripted(script=script, hold_at=hold_at), stream_file) as (process, client):
            verb, path, fields = ("GET", f"/v1/streams/{stream_id}", None) if stream_id else ("POST", PATH, ASK)
            seen = {"last-event-id": str(len(told))}
            with client.stream(verb, path, json=fields, headers=seen) as response:
                stream_id = response.headers["x-stream-id"]
                told += read_numbered(read_until(response, wanted)) if wanted else []
                process.send_signal(signal.SIGKILL)
                process.wait(DEADLINE_S)
    with killable(scripted(script=script), stream_file) as (_, client):
        told += read_numbered(client.get(f"/v1/streams/{stream_id}", headers={"last-event-id": str(len(told))}).text)
        assert read_numbered(client.get(f"/v1/streams/{stream_id}").text) == told
    assert text_of(told) == "".join(script)
    assert [number for number, _ in told] == [*range(1, len(told)), None]


@pytest.mark.slow
@pytest.mark.parametrize("sampling", [{"temperature": 0}, {"temperature": 1.0, "seed": 7}, {"temperature": 1.0}])
def test_a_real_model_goes_on_with_the_same_text(
    tmp_path: Path, smollm2_path: Path, sampling: dict[str, float]
) -> None:
    command = ["-m", "vivace", "serve", "--model", str(smollm2_path), "--context", "512"]
    fields = {**ASK, **sampling, "max_tokens": 48, "ignore_eos": True}
    stream_file = tmp_path / "streams.db"
    with killable(command, stream_file) as (process, client), client.stream("POST", PATH, json=fields) as response:
        stream_id = response.headers["x-stream-id"]
        head = read_numbered(read_until(response, 12))
        process.send_signal(signal.SIGKILL)
        process.wait(DEADLINE_S)
    with killable(command, stream_file) as (_, client):
        resumed = client.get(f"/v1/streams/{stream_id}", params={"starting_after": head[-1][0]})
        rest = read_numbered(resumed.text)
        text = text_of(head) + text_of(rest)
        if "seed" in sampling or sampling["temperature"] == 0:
            assert text == text_of(read_numbered(client.post(PATH, json=fields).text))
        numbers = [number for number, _ in head + rest]
        assert numbers == [*range(1, len(numbers)), None]
