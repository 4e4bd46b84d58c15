"""The lines that tell what happened to a stream."""

import logging
import re

import pytest

from vivace.stream.diagnostics import StreamDiagnostics


def tell(share: float = 1.0, stream_id: str = "stream-0123456789abcdef") -> None:
    ticks = iter((0, 150_000_000, 180_000_000))
    diagnostics = StreamDiagnostics(stream_id, share, lambda: next(ticks))
    diagnostics.note_start()
    diagnostics.note_tokens(1)
    diagnostics.note_tokens(1)
    diagnostics.note_reader(5, is_resume=True)
    diagnostics.note_report(0.8, 0.045, 0)
    diagnostics.note_end("completed")


def test_the_lines_have_the_form_that_is_documented(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "vivace.stream"):
        tell()
    lines = [re.fullmatch(r"\[\d{4}-\d\d-\d\dT[\d:.]+Z\] stream_id=(\S+) (.+)", text) for text in caplog.messages]
    assert [line and line.group(2) for line in lines] == [
        "action=start",
        "token_id=1 latency=150ms",
        "token_id=2 latency=30ms",
        "action=resume replayed_events=5",
        "buffer_size=0.8s network_rtt=45ms",
        "action=complete total_tokens=2",
    ]
    assert {line and line.group(1) for line in lines} == {"stream-012345678"}


def test_nothing_is_told_unless_asked_and_only_of_the_sample(caplog: pytest.LogCaptureFixture) -> None:
    tell()
    assert not caplog.messages
    with caplog.at_level(logging.INFO, "vivace.stream"):
        tell(share=0.0)
        assert not caplog.messages
        for number in range(100):
            tell(0.2, f"stream-{number}")
    assert 6 * 5 <= len(caplog.messages) <= 6 * 40
