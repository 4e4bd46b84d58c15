"""Streams in an SQLite file: what was sent survives `kill -9`, and a restarted server goes on from there.

Every event is in the file before a reader sees it (one transaction for what one step brought). The write-ahead log is
not forced to the disk at each commit: a killed process loses nothing, a power failure may lose the newest events and
never damages the file.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from vivace.stream.journal import Progress, RunRecord, SavedRun, note_saved
from vivace.stream.journal_codec import decode_progress, decode_tokens, encode_progress, encode_tokens
from vivace.stream.lifecycle import StreamStatus
from vivace.stream.log import LogEvent
from vivace.types.errors import StorageError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    stream_id TEXT PRIMARY KEY, owner TEXT NOT NULL, kind TEXT NOT NULL, request BLOB NOT NULL,
    status TEXT NOT NULL, progress BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events (
    stream_id TEXT NOT NULL, number INTEGER NOT NULL, name TEXT NOT NULL, payload BLOB NOT NULL,
    reading_s REAL NOT NULL,
    PRIMARY KEY (stream_id, number)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tokens (
    stream_id TEXT NOT NULL, choice INTEGER NOT NULL, start INTEGER NOT NULL, ids BLOB NOT NULL,
    PRIMARY KEY (stream_id, choice, start)
) WITHOUT ROWID;
"""
_VERSION = 2


class SqliteJournal:
    """A journal in one file. Belongs to one thread and one process.

    Args:
        path: of the file; made when it is not there.

    Raises:
        StorageError: the file cannot be opened, or another version or program made it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, _VERSION):
                raise StorageError(f"{path} is of version {version}.", "Name another file for streams.")
            self._db.executescript(_SCHEMA)
            self._db.execute(f"PRAGMA user_version = {_VERSION}")
        except (sqlite3.Error, OSError) as error:
            raise StorageError(f"{path} cannot keep streams: {error}.", "Name a file in a folder of yours.") from None
        path.chmod(0o600)  # it holds what people asked and were told

    def begin(self, record: RunRecord) -> None:
        """See Journal."""
        row = (record.stream_id, record.owner, record.kind, record.request, StreamStatus.RUNNING.value, b"{}")
        self._write([("INSERT OR IGNORE INTO runs VALUES (?, ?, ?, ?, ?, ?)", [row])])

    def append(self, stream_id: str, events: Sequence[LogEvent], progress: Mapping[int, Progress]) -> None:
        """See Journal."""
        self._write(self._advance(stream_id, events, progress))
        note_saved(progress)

    def end(
        self, stream_id: str, events: Sequence[LogEvent], progress: Mapping[int, Progress], status: StreamStatus
    ) -> None:
        """See Journal."""
        ended = ("UPDATE runs SET status = ? WHERE stream_id = ?", [(status.value, stream_id)])
        self._write([*self._advance(stream_id, events, progress), ended])
        note_saved(progress)

    def forget(self, stream_id: str) -> None:
        """See Journal."""
        self._write(
            [
                ("DELETE FROM events WHERE stream_id = ?", [(stream_id,)]),
                ("DELETE FROM tokens WHERE stream_id = ?", [(stream_id,)]),
                ("DELETE FROM runs WHERE stream_id = ?", [(stream_id,)]),
            ]
        )

    def release(self, stream_id: str) -> None:
        """See Journal."""
        self.forget(stream_id)

    def load(self) -> list[SavedRun]:
        """Every stream in the file, in no order.

        Raises:
            StorageError: the file cannot be read.
        """
        try:
            rows = self._db.execute("SELECT stream_id, owner, kind, request, status, progress FROM runs").fetchall()
            return [
                SavedRun(
                    RunRecord(*row[:4]),
                    StreamStatus(row[4]),
                    self._events(row[0]),
                    self._progress(row[0], row[5]),
                )
                for row in rows
            ]
        except (sqlite3.Error, msgspec.MsgspecError, ValueError) as error:
            raise StorageError(f"{self._path} cannot be read: {error}.", "Name another file for streams.") from None

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _events(self, stream_id: str) -> tuple[LogEvent, ...]:
        query = "SELECT number, name, payload, reading_s FROM events WHERE stream_id = ? ORDER BY number"
        return tuple(LogEvent(*row) for row in self._db.execute(query, (stream_id,)))

    def _progress(self, stream_id: str, encoded: bytes) -> dict[int, Progress]:
        progress = decode_progress(encoded)
        query = "SELECT choice, ids FROM tokens WHERE stream_id = ? ORDER BY choice, start"
        for choice, ids in self._db.execute(query, (stream_id,)):
            progress[choice].token_ids += decode_tokens(ids)
        note_saved(progress)
        return progress

    def _advance(
        self, stream_id: str, events: Sequence[LogEvent], progress: Mapping[int, Progress]
    ) -> list[tuple[str, Sequence[tuple[object, ...]]]]:
        """Statements for the events, the tokens that no row holds yet, and how far each choice is."""
        fresh = [
            (stream_id, choice, known.num_saved, encode_tokens(known.token_ids[known.num_saved :]))
            for choice, known in progress.items()
            if len(known.token_ids) > known.num_saved
        ]
        return [
            ("INSERT INTO events VALUES (?, ?, ?, ?, ?)", _rows(stream_id, events)),
            ("INSERT INTO tokens VALUES (?, ?, ?, ?)", fresh),
            ("UPDATE runs SET progress = ? WHERE stream_id = ?", [(encode_progress(progress), stream_id)]),
        ]

    def _write(self, statements: Sequence[tuple[str, Sequence[tuple[object, ...]]]]) -> None:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                for statement, rows in statements:
                    self._db.executemany(statement, rows)
                self._db.execute("COMMIT")
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise StorageError(
                f"{self._path} cannot be written: {error}.", "Make room, or name another file."
            ) from None


def _rows(stream_id: str, events: Sequence[LogEvent]) -> list[tuple[object, ...]]:
    return [(stream_id, event.number, event.name, event.payload, event.reading_s) for event in events]
