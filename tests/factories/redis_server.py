"""A real Redis on a loopback port, for one test module; tests skip where `redis-server` is not installed."""

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

DEADLINE_S = 30


def needs_redis() -> pytest.MarkDecorator:
    """Skips where there is no Redis, or no client for it."""
    pytest.importorskip("redis", reason="the extra redis is not installed")
    return pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")


@contextmanager
def redis_server() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Its URL and its process; nothing is written to the disk."""
    import redis

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--daemonize", "no"]
    process = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"redis://127.0.0.1:{port}/0"
    try:
        with redis.Redis.from_url(url) as client:
            _wait_until_it_answers(client, process)
        yield url, process
    finally:
        process.kill()
        process.wait(DEADLINE_S)


def _wait_until_it_answers(client: object, process: subprocess.Popen[bytes]) -> None:
    import redis

    while process.poll() is None:
        try:
            client.ping()  # type: ignore[attr-defined]
            return
        except redis.ConnectionError:
            continue
    raise AssertionError("redis-server did not start")
