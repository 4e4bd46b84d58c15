"""A scripted server for every test of the HTTP front."""

from collections.abc import Iterator

import httpx
import pytest

from factories.live_server import LiveServer, live_server
from factories.scripted_service import ScriptedService


@pytest.fixture(scope="session")
def scripted_server() -> Iterator[LiveServer]:
    """One server for all tests that only ask."""
    with live_server(ScriptedService) as server:
        yield server


@pytest.fixture
def client(scripted_server: LiveServer) -> Iterator[httpx.Client]:
    with scripted_server.client() as http:
        yield http
