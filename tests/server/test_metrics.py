"""GET /metrics, and that its figures are those of what happened."""

import httpx
from prometheus_client.parser import text_string_to_metric_families

from factories.live_server import DEADLINE_S, live_server
from factories.scripted_service import SCRIPT, ScriptedService

PATH = "/v1/chat/completions"
ASK = {"messages": [{"role": "user", "content": "hello"}], "stream": True}


def scraped(client: httpx.Client) -> dict[str, float]:
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    families = text_string_to_metric_families(response.text)
    return {
        sample.name + "".join(f"_{value}" for name, value in sample.labels.items() if name != "le"): sample.value
        for family in families
        for sample in family.samples
        if not sample.name.endswith("_bucket")
    }


def test_streams_are_counted_with_their_ends_readers_and_reports() -> None:
    with live_server(ScriptedService) as server, server.client() as client:
        first = client.post(PATH, json=ASK)
        client.post(PATH, json={**ASK, "max_tokens": 2})
        path = f"/v1/streams/{first.headers['x-stream-id']}"
        client.get(path, params={"starting_after": 2})
        report = {"number": 4, "buffer_s": 0.4, "rtt_s": 0.05, "stalls": 2}
        assert client.post(f"{path}/ack", json=report).json()["status"] == "completed"
        figures = scraped(client)
    assert figures["vivace_stream_ended_total_completed"] == 1
    assert figures["vivace_stream_ended_total_incomplete"] == 1
    assert figures["vivace_stream_running"] == 0
    assert figures["vivace_stream_tokens_total"] == len(SCRIPT) + 2
    assert figures["vivace_stream_ttft_seconds_count"] == 2
    assert figures["vivace_stream_tokens_per_second_count"] == 2
    assert (figures["vivace_stream_readers_total"], figures["vivace_stream_resumes_total"]) == (3, 1)
    assert figures["vivace_stream_interruptions_total"] == 0
    assert figures["vivace_stream_client_buffer_seconds_sum"] == 0.4
    assert figures["vivace_stream_client_rtt_seconds_sum"] == 0.05
    assert figures["vivace_stream_client_stalls_total"] == 2
    assert figures["vivace_engine_requests_total"] == 7  # the stand-in's seventh number


def test_a_reader_that_leaves_early_is_an_interruption() -> None:
    service = ScriptedService(hold_at=3, warm_up_passes=True)
    with live_server(lambda: service) as server, server.client() as client:
        with client.stream("POST", PATH, json=ASK) as response:
            next(response.iter_bytes())
        assert service.cancelled.wait(DEADLINE_S)
        assert scraped(client)["vivace_stream_interruptions_total"] == 1
