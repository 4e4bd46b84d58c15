"""Votes of people on pairs of answers, in an SQLite file, and what they say: win rate, Bradley-Terry ratings, bias.

A vote names the models, never the sides, so that sides cannot be mixed up later; which side won is kept beside it to
see whether people favour one. A tie counts half for each.
"""

import math
import sqlite3
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vivace.evaluate.paired import Z, mcnemar, wilson_interval
from vivace.types.errors import StorageError

_ROUNDS = 60  # of the minorise-maximise steps; two models need a handful
_PRIOR = 0.5  # votes for either side that every pair is given, so that 5 : 0 is no infinite rating
ELO_PER_NAT = 400 / math.log(10)
_SCHEMA = """
CREATE TABLE IF NOT EXISTS votes (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, prompt TEXT NOT NULL, left TEXT NOT NULL, right TEXT NOT NULL,
    left_answer TEXT NOT NULL, right_answer TEXT NOT NULL, score REAL NOT NULL
)"""


@dataclass(frozen=True, slots=True)
class Vote:
    """One decision. `score` is what the left model gets: 1, 0, or a half for a tie."""

    prompt: str
    left: str
    right: str
    left_answer: str
    right_answer: str
    score: float


@dataclass(frozen=True, slots=True)
class Rating:
    """A model's rating on Elo's scale around 1500, with its 95 % interval."""

    model: str
    elo: float
    low: float
    high: float
    num_votes: int


@dataclass(frozen=True, slots=True)
class Standing:
    """Two models against one another.

    Attributes:
        wins: votes for `model`; `losses` for the other; `ties`.
        win_rate: wins and half the ties over all votes, with its 95 % interval; None without votes.
        p_value: that both are equally liked (exact sign test without ties).
        left_rate: share of decided votes that went to the left side, whoever stood there: far from a half is a bias.
    """

    model: str
    other: str
    wins: int
    losses: int
    ties: int
    win_rate: float | None
    low: float
    high: float
    p_value: float
    left_rate: float | None


class VoteStore:
    """Votes in a file. One lock; may be used from any thread.

    Args:
        path: made when it is missing; ":memory:" keeps nothing.

    Raises:
        StorageError: the file cannot be opened or is no vote file.
    """

    def __init__(self, path: Path | str) -> None:
        self._lock = threading.Lock()
        try:
            self._file = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._file.execute(_SCHEMA)
            self._file.execute("SELECT left, right, score FROM votes LIMIT 1")
        except sqlite3.Error as error:
            raise StorageError(f"The votes {path} cannot be opened: {error}.", "Choose another file.") from None

    def add(self, vote: Vote) -> None:
        """Keep a vote; it is in the file when this returns."""
        row = (time.time(), vote.prompt, vote.left, vote.right, vote.left_answer, vote.right_answer, vote.score)
        with self._lock:
            self._file.execute(
                "INSERT INTO votes (at, prompt, left, right, left_answer, right_answer, score) VALUES (?,?,?,?,?,?,?)",
                row,
            )

    def all(self) -> list[Vote]:
        """All votes, oldest first."""
        with self._lock:
            rows = self._file.execute(
                "SELECT prompt, left, right, left_answer, right_answer, score FROM votes ORDER BY id"
            ).fetchall()
        return [Vote(*row) for row in rows]

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._file.close()


def standing(votes: Sequence[Vote], model: str, other: str) -> Standing:
    """How one model stands against another."""
    scores = [vote.score if vote.left == model else 1 - vote.score for vote in votes if _is_pair(vote, model, other)]
    sides = [vote.score for vote in votes if _is_pair(vote, model, other) and vote.score != 0.5]
    wins, losses = sum(score == 1 for score in scores), sum(score == 0 for score in scores)
    low, high = wilson_interval(sum(scores), len(scores))
    return Standing(
        model=model,
        other=other,
        wins=wins,
        losses=losses,
        ties=len(scores) - wins - losses,
        win_rate=sum(scores) / len(scores) if scores else None,
        low=low,
        high=high,
        p_value=mcnemar(losses, wins),
        left_rate=sum(sides) / len(sides) if sides else None,
    )


def ratings(votes: Sequence[Vote]) -> list[Rating]:
    """Bradley-Terry ratings of all models in the votes on Elo's scale, the best first.

    Hunter (2004), section 3. Intervals come from the curvature of the likelihood: few votes, or votes that all agree,
    give wide ones, where resampling them would give none.
    """
    names = sorted({name for vote in votes for name in (vote.left, vote.right)})
    if not votes:
        return []
    place = {name: number for number, name in enumerate(names)}
    left, right = (np.array([place[getattr(vote, side)] for vote in votes]) for side in ("left", "right"))
    scores = np.array([vote.score for vote in votes])
    middle, errors = _bradley_terry(left, right, scores, len(names))
    low, high = middle - Z * errors, middle + Z * errors
    counts = np.bincount(np.concatenate([left, right]), minlength=len(names))
    rows = [Rating(*row) for row in zip(names, *(v.tolist() for v in (middle, low, high, counts)), strict=True)]
    return sorted(rows, key=lambda row: -row.elo)


def _bradley_terry(
    left: np.ndarray, right: np.ndarray, scores: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Elo of each model, with a mean of 1500, and its standard error."""
    wins = np.zeros((count, count))
    np.add.at(wins, (left, right), scores)
    np.add.at(wins, (right, left), 1 - scores)
    met = (wins + wins.T) > 0
    wins += _PRIOR * met
    games = wins + wins.T
    strength = np.ones(count)
    for _ in range(_ROUNDS):
        weights = (games / (strength[:, None] + strength[None, :])).sum(axis=1)
        strength = np.where(weights > 0, wins.sum(axis=1) / np.maximum(weights, 1e-12), strength)
        strength /= np.exp(np.log(strength).mean())
    share = strength[:, None] / (strength[:, None] + strength[None, :])
    known = games * share * (1 - share)  # Fisher's information on the difference of each pair
    covariance = np.linalg.pinv(np.diag(known.sum(axis=1)) - known)
    errors = ELO_PER_NAT * np.sqrt(np.maximum(np.diag(covariance), 0.0))
    return 1500 + ELO_PER_NAT * np.log(strength), errors


def _is_pair(vote: Vote, model: str, other: str) -> bool:
    return {vote.left, vote.right} == {model, other}
