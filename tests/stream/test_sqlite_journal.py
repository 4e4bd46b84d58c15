"""What the journal's file gives back, and what it refuses."""

import sqlite3
from pathlib import Path

import pytest

from vivace.stream.journal import Progress, RunRecord
from vivace.stream.lifecycle import StreamStatus
from vivace.stream.log import LogEvent
from vivace.stream.sqlite_journal import SqliteJournal
from vivace.types.errors import StorageError

RECORD = RunRecord("stream-a", "owner", "chat", b"{}")


def test_everything_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "streams.db"
    journal = SqliteJournal(path)
    journal.begin(RECORD)
    journal.begin(RunRecord("stream-b", "owner", "chat", b"{}"))
    events = [LogEvent(1, "", b"x", 0.5), LogEvent(2, "slow", b"y")]
    progress = {0: Progress(3, [7]), 1: Progress(0, [], "length", 2)}
    journal.append("stream-a", events[:1], progress)
    progress[0].token_ids += [70000, 8]
    journal.append("stream-a", events[1:], progress)
    journal.end("stream-b", [LogEvent(1, "end", b"z")], {0: Progress(1, [5])}, StreamStatus.CANCELLED)
    again = {saved.record.stream_id: saved for saved in SqliteJournal(path).load()}  # the first one is still open
    saved = again["stream-a"]
    assert (saved.record, saved.status, saved.events) == (RECORD, StreamStatus.RUNNING, tuple(events))
    assert saved.progress == progress
    assert again["stream-b"].progress[0].token_ids == [5]
    assert again["stream-b"].status is StreamStatus.CANCELLED
    journal.forget("stream-a")
    assert [saved.record.stream_id for saved in journal.load()] == ["stream-b"]
    assert path.stat().st_mode & 0o077 == 0
    journal.close()


def test_a_batch_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "streams.db")
    journal.begin(RECORD)
    journal.append("stream-a", [LogEvent(1, "", b"x")], {})
    with pytest.raises(StorageError):
        journal.append("stream-a", [LogEvent(2, "", b"y"), LogEvent(1, "", b"twice")], {})
    assert [event.number for event in journal.load()[0].events] == [1]
    journal.close()


def test_files_that_are_no_journal_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a database " * 100)
    with sqlite3.connect(tmp_path / "newer") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    for name in ("text", "newer", ""):
        with pytest.raises(StorageError):
            SqliteJournal(tmp_path / name)
