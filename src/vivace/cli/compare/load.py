"""Chats sent to a server all at once, and when their tokens came back. Speaks HTTP/1.1 over plain sockets.

A client library would take more of the machine than some servers do: here a chunk costs one read and one comparison.
"""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

CHAT_PATH = "/v1/chat/completions"


@dataclass(slots=True)
class ChatTimes:
    """Seconds from the start of all chats to each piece of one answer, and what its usage says was written."""

    pieces: list[float] = field(default_factory=list)
    num_tokens: int = 0
    text: str = ""
    error: str = ""

    @property
    def first_s(self) -> float:
        """Until the first piece."""
        return self.pieces[0] if self.pieces else float("inf")


def chat_body(model: str, messages: Sequence[Mapping[str, str]], num_tokens: int) -> dict[str, Any]:
    """A greedy chat that goes on for `num_tokens`, past any end of text."""
    return {
        "model": model,
        "messages": list(messages),
        "max_tokens": num_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def send_all(port: int, bodies: Sequence[Mapping[str, Any]]) -> list[ChatTimes]:
    """Send all chats at the same time and read every answer to its end."""
    start_s = time.perf_counter()
    return list(await asyncio.gather(*(_send(port, body, start_s) for body in bodies)))


def run_all(port: int, bodies: Sequence[Mapping[str, Any]]) -> list[ChatTimes]:
    """As `send_all`, for callers without an event loop."""
    return asyncio.run(send_all(port, bodies))


async def _send(port: int, body: Mapping[str, Any], start_s: float) -> ChatTimes:
    times = ChatTimes()
    payload = json.dumps(body).encode()
    head = f"POST {CHAT_PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    try:
        writer.write(f"{head}Content-Length: {len(payload)}\r\nConnection: close\r\n\r\n".encode() + payload)
        await writer.drain()
        status = await reader.readline()
        if b" 200 " not in status:
            times.error = (status + await reader.read(2000)).decode(errors="replace")
            return times
        events = []
        while line := await reader.readline():
            if line.startswith(b"data: {"):
                events.append(line)
                times.pieces.append(time.perf_counter() - start_s)
            elif line.startswith(b"data: [DONE]"):
                break
    finally:
        writer.close()
    _read_events(events, times)
    return times


def _read_events(events: Sequence[bytes], times: ChatTimes) -> None:
    """Keep the times of pieces with text; done after the run, when it takes nobody's time."""
    arrived, times.pieces = times.pieces, []
    for line, at_s in zip(events, arrived, strict=True):
        event = json.loads(line[6:])
        if "error" in event:
            times.error = json.dumps(event["error"])
        for choice in event.get("choices", ()):
            text = choice.get("delta", {}).get("content")
            if text:
                times.text += text
                times.pieces.append(at_s)
        if event.get("usage"):
            times.num_tokens = event["usage"]["completion_tokens"]
