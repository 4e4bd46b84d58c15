"""A client whose answers survive the network: it reconnects, resumes where it was, and loses or doubles nothing.

from vivace.client import Client

with Client("http://127.0.0.1:8000") as client:
    for text in client.text([{"role": "user", "content": "Why is the sky blue?"}]):
        print(text, end="", flush=True)
"""

from vivace.client.asynchronous import AsyncClient
from vivace.client.events import Position, ServerEvent, StreamBrokenError
from vivace.client.retry import RetryPolicy
from vivace.client.socket_asynchronous import AsyncSocketClient
from vivace.client.socket_synchronous import SocketClient
from vivace.client.synchronous import Client

__all__ = [
    "AsyncClient",
    "AsyncSocketClient",
    "Client",
    "Position",
    "RetryPolicy",
    "ServerEvent",
    "SocketClient",
    "StreamBrokenError",
]
