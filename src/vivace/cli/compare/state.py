"""What a comparison has found so far, in a file: one that was stopped goes on where it was."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from vivace.cli.compare.cases import Case
from vivace.cli.compare.report import RowFacts
from vivace.cli.compare.turns import Run
from vivace.types.errors import ConfigError


@dataclass(slots=True)
class _Content:
    """The file: what was asked, what is known of each row, and the runs by case, turn and row."""

    asked: dict[str, Any]
    facts: dict[str, RowFacts] = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)


class SavedComparison:
    """Keeps runs and facts, written whole after each of them.

    Args:
        path: of the file; None: nothing is kept.
        asked: what the comparison is of, as JSON has it; a file of another one is refused.

    Raises:
        ConfigError: the file is of another comparison, or cannot be read or written.
    """

    def __init__(self, path: Path | None, asked: Mapping[str, Any]) -> None:
        self._path = path
        self._content = _Content(msgspec.to_builtins(dict(asked)))
        if path is not None and path.exists():
            self._content = self._read(path)
        self._write()  # a place that cannot be written to is told before the first run

    @property
    def facts(self) -> Mapping[str, RowFacts]:
        """What is known of the rows."""
        return self._content.facts

    def run_of(self, case: Case, turn: int, row: str) -> Run | None:
        """A run that was kept."""
        return self._content.runs.get(_key(case, turn, row))

    def keep(self, case: Case, turn: int, row: str, run: Run) -> None:
        """Keep a run."""
        self._content.runs[_key(case, turn, row)] = run
        self._write()

    def keep_facts(self, facts: Mapping[str, RowFacts]) -> None:
        """Keep what is known of rows now."""
        self._content.facts.update(facts)
        self._write()

    def _read(self, path: Path) -> _Content:
        hint = "Name another file, or delete this one."
        try:
            content = msgspec.json.decode(path.read_bytes(), type=_Content)
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}.", "Name a file.") from None
        except msgspec.MsgspecError as error:
            raise ConfigError(f"{path} cannot be read as the state of a comparison: {error}.", hint) from None
        differing = [name for name, value in self._content.asked.items() if content.asked.get(name) != value]
        if differing:
            raise ConfigError(f"{path} is the state of another comparison ({', '.join(differing)} differ).", hint)
        return content

    def _write(self) -> None:
        if self._path is not None:
            beside = self._path.with_name(self._path.name + ".new")
            try:
                beside.write_bytes(msgspec.json.format(msgspec.json.encode(self._content), indent=1) + b"\n")
                beside.replace(self._path)
            except OSError as error:
                hint = "Name a file in a folder that may be written to and has room."
                raise ConfigError(f"{self._path} cannot be written: {error.strerror}.", hint) from None


def _key(case: Case, turn: int, row: str) -> str:
    return f"{case.name}, turn {turn + 1}, {row}"
