"""Runs the command in this process, with a scripted model."""

from collections.abc import Callable

import pytest

from factories.scripted_service import ScriptedService
from vivace.cli import model_options
from vivace.cli.main import main

RunVivace = Callable[..., int]


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> ScriptedService:
    """The model that commands of this test will open."""
    scripted = ScriptedService()
    monkeypatch.setattr(model_options, "build", lambda arguments: scripted)
    return scripted


@pytest.fixture
def vivace(service: ScriptedService) -> RunVivace:
    """Run `vivace` with arguments; returns its exit status."""
    return lambda *arguments: main(arguments)
