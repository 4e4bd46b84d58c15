"""How long answers get, learned online from this server's own history.

Answers are counted in cells of (kind, size class of the prompt, size class of max_tokens). A cell with few answers
leans on its kind, and a kind on all answers, as if those had `PRIOR_ANSWERS` answers in it. Old answers fade.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import TypeVar

from vivace.types.request import GenerationRequest

PRIOR_ANSWERS = 4.0
PRIOR_TOKENS = 128.0
FADE = 0.995  # an answer weighs half after about 140 later ones of its cell
MAX_CELLS = 512

Cell = tuple[str, int, int]
KeyT = TypeVar("KeyT")


@dataclass(slots=True)
class _Mean:
    weight: float = 0.0
    total: float = 0.0

    def add(self, value: float) -> None:
        self.weight = FADE * self.weight + 1
        self.total = FADE * self.total + value

    def toward(self, prior: float) -> float:
        return (self.total + PRIOR_ANSWERS * prior) / (self.weight + PRIOR_ANSWERS)


class CompletionEstimator:
    """Expected tokens of an answer, and how wrong the expectations were."""

    def __init__(self) -> None:
        self._all = _Mean()
        self._kinds: OrderedDict[str, _Mean] = OrderedDict()
        self._cells: OrderedDict[Cell, _Mean] = OrderedDict()
        self._error = _Mean()
        self._length = _Mean()

    @property
    def mean_error_tokens(self) -> float | None:
        """Mean absolute error of the expectation at arrival, in tokens; None before the first answer has ended."""
        return self._error.total / self._error.weight if self._error.weight else None

    @property
    def relative_error(self) -> float | None:
        """Sum of absolute errors over sum of lengths."""
        return self._error.total / self._length.total if self._length.total else None

    def expect(self, request: GenerationRequest) -> float:
        """Tokens that one answer of the request will have; at least 1, at most its max_tokens."""
        kind, cell = _kind(request), _cell(request)
        most = request.stopping.max_tokens
        prior = PRIOR_TOKENS if most is None else min(PRIOR_TOKENS, most)
        expected = self._all.toward(prior)
        for mean in (self._kinds.get(kind), self._cells.get(cell)):
            if mean is not None:
                expected = mean.toward(expected)
        return max(1.0, expected if most is None else min(expected, most))

    def learn(self, request: GenerationRequest, expected: float, num_generated: int) -> None:
        """An answer has ended by itself or at its limit.

        Args:
            request: what was asked.
            expected: what `expect` said when it came.
            num_generated: tokens it had.
        """
        self._error.add(abs(expected - num_generated))
        self._length.add(num_generated)
        self._all.add(num_generated)
        _recent(self._kinds, _kind(request)).add(num_generated)
        _recent(self._cells, _cell(request)).add(num_generated)


def _kind(request: GenerationRequest) -> str:
    return request.service_level.kind or ("text" if request.continues_text else "chat")


def _cell(request: GenerationRequest) -> Cell:
    most = request.stopping.max_tokens
    return _kind(request), len(request.prompt_ids).bit_length(), 0 if most is None else most.bit_length()


def _recent(means: "OrderedDict[KeyT, _Mean]", key: KeyT) -> _Mean:
    """The entry of a key, now the most recent one; the least recent one goes when there are too many."""
    mean = means.setdefault(key, _Mean())
    means.move_to_end(key)
    if len(means) > MAX_CELLS:
        means.popitem(last=False)
    return mean
