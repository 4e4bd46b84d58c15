"""kill -9 at random moments with a real model: the text in the end is that of a run that nobody touched."""

import random
import signal
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from factories.killable import killable, text_of
from factories.live_server import DEADLINE_S, read_numbered

PATH = "/v1/chat/completions"
ASK = {
    "messages": [{"role": "user", "content": "Tell me a long story about a lighthouse."}],
    "stream": True,
    "stream_options": {"on_disconnect": "keep", "include_usage": True},
    "ignore_eos": True,
}
SAMPLINGS = {"greedy": {"temperature": 0}, "seeded": {"temperature": 1.0, "seed": 7}}
Numbered = list[tuple[int | None, object]]


def read_until_death(client: httpx.Client, verb: str, path: str, **options: object) -> tuple[str, Numbered]:
    """The stream's name ("" when the server died before telling it) and the whole events that came through."""
    stream_id, body = "", b""
    try:
        with client.stream(verb, path, **options) as response:  # type: ignore[arg-type]
            assert response.status_code == 200, response.read()
            stream_id = response.headers["x-stream-id"]
            for piece in response.iter_raw():
                body += piece
    except httpx.TransportError:
        pass
    return stream_id, read_numbered(body.decode(errors="ignore"))


@dataclass(slots=True)
class Kills:
    """Answers read from servers that die; `moments` has the number of events that were seen at each death."""

    command: list[str]
    stream_file: Path
    rng: random.Random
    moments: list[int] = field(default_factory=list)

    def read_answer(self, fields: dict[str, object]) -> Numbered:
        """One answer to its end, whoever dies meanwhile."""
        stream_id, told = "", Numbered()
        while not told or told[-1][0] is not None:
            began_s = time.monotonic()
            with killable(self.command, self.stream_file) as (process, client):
                spread_s = (time.monotonic() - began_s) / 2  # machines differ: about what the first words take
                killer = threading.Timer(self.rng.uniform(0, spread_s), process.send_signal, [signal.SIGKILL])
                killer.start()
                if stream_id:
                    seen = {"last-event-id": str(len(told))}
                    _, more = read_until_death(client, "GET", f"/v1/streams/{stream_id}", headers=seen)
                else:
                    stream_id, more = read_until_death(client, "POST", PATH, json=fields)
                killer.join(DEADLINE_S)
                process.wait(DEADLINE_S)
            told += more
            self.moments.append(len(told))
        self.moments.pop()  # that one came after the end
        with killable(self.command, self.stream_file) as (_, client):
            assert read_numbered(client.get(f"/v1/streams/{stream_id}").text) == told
        return told


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_fifty_kills_at_random_moments_leave_the_text_of_a_real_model(
    tmp_path: Path, smollm2_path: Path, sampling: str
) -> None:
    command = ["-m", "vivace", "serve", "--model", str(smollm2_path), "--context", "1024"]
    fields = {**ASK, **SAMPLINGS[sampling], "max_tokens": 200}
    with killable(command, tmp_path / "other.db") as (_, client):
        untouched = text_of(read_numbered(client.post(PATH, json=fields).text))
    kills = Kills(command, tmp_path / "streams.db", random.Random(sampling))
    while len(kills.moments) < 50:
        told = kills.read_answer(fields)
        assert text_of(told) == untouched
        assert [number for number, _ in told] == [*range(1, len(told)), None]
    assert sum(moment > 0 for moment in kills.moments) > 25, "most kills came before anything was said"
