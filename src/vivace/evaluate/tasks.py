"""Which questions an executor gets right: by the likelihood of endings and words, or by what it writes.

One sequence at a time through KV blocks 0, 1, 2 ...; the context of a question is computed once for all its endings.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from vivace.compress.progress import Report
from vivace.evaluate.items import Choice, Item, LastWord, Sum, last_number, normal_number
from vivace.execute.score import Tokens, log_softmax
from vivace.text.tokenizer import Tokenizer
from vivace.types.step import BLOCK_SIZE, ForwardBatch, ForwardPass

MOST_TOKENS = 1024  # of a question with its longest ending, where a report asks
_SUM_TOKENS = 160
_SHOTS = (
    "Question: Tom has 3 apples and buys 4 more. How many apples does he have?\n"
    "Answer: Tom has 3 + 4 = 7 apples. The answer is 7.\n\n"
)


@dataclass(frozen=True, slots=True)
class Subject:
    """A model that is asked: its executor (whose KV blocks 0, 1, 2 ... are used) and its tokenizer."""

    executor: ForwardPass
    tokenizer: Tokenizer

    @property
    def most_tokens(self) -> int:
        """Of a question with its longest ending."""
        return self.executor.num_blocks * BLOCK_SIZE

    def encode(self, text: str) -> list[int]:
        """Tokens of a text as the model reads it, BOS first for models that take one."""
        return list(self.tokenizer.encode(text))


def answer_items(subject: Subject, items: Sequence[Item], report: Report, name: str = "tasks") -> list[bool]:
    """Whether each question was answered right; one that is too long counts as wrong."""
    right = []
    for done, item in enumerate(items):
        report(done, len(items), f"asking {name}")
        right.append(ANSWERS[type(item)](subject, item))
    report(len(items), len(items), f"asked {name}")
    return right


def ending_log_probabilities(subject: Subject, context: str, endings: Sequence[str]) -> list[tuple[float, int, bool]]:
    """Of each ending after a context: sum of natural-log probabilities, number of tokens, all of them likeliest.

    The tokens that ending and context share at the seam are those of the whole text, so that a tokenizer may merge
    across it.
    """
    whole = [subject.encode(context + ending) for ending in endings]
    shared = min(_shared_length(ids, subject.encode(context)) for ids in whole)
    shared = max(min(shared, *(len(ids) - 1 for ids in whole)), 1)
    if max(map(len, whole)) > subject.most_tokens:
        return [(-np.inf, 1, False) for _ in endings]
    tails = [ids[shared:] for ids in whole]
    scores = tail_log_probabilities(subject, whole[0][:shared], tails)
    return [(total, len(tail), greedy) for (total, greedy), tail in zip(scores, tails, strict=True)]


def tail_log_probabilities(
    subject: Subject, context: Sequence[int], tails: Sequence[Sequence[int]]
) -> list[tuple[float, bool]]:
    """Of each tail of tokens after a context of at least one: sum of natural-log probabilities, all of them likeliest.

    Context and tail together must fit `subject.most_tokens`. The context is computed once.
    """
    first = log_softmax(_forward(subject.executor, np.array(context, np.int32), 0, rows=1))[-1]
    found = []
    for tail in (np.array(ids, np.int32) for ids in tails):
        rows = first[None]
        if len(tail) > 1:  # overwrites what the tail before wrote behind the context
            rows = np.concatenate([rows, log_softmax(_forward(subject.executor, tail[:-1], len(context)))])
        own = rows[np.arange(len(tail)), tail]
        found.append((float(own.sum()), bool((rows.argmax(axis=-1) == tail).all())))
    return found


def _choose(subject: Subject, item: Item) -> bool:
    """The ending with the largest log-probability for each byte of its text (acc_norm of lm-eval)."""
    assert isinstance(item, Choice)
    scores = ending_log_probabilities(subject, item.context, item.endings)
    lengths = [max(len(ending.encode()), 1) for ending in item.endings]
    per_byte = [total / length for (total, _, _), length in zip(scores, lengths, strict=True)]
    return int(np.argmax(per_byte)) == item.answer


def _guess_word(subject: Subject, item: Item) -> bool:
    """Every token of the word is the likeliest."""
    assert isinstance(item, LastWord)
    return ending_log_probabilities(subject, item.context, [item.word])[0][2]


def _work_out(subject: Subject, item: Item) -> bool:
    """The last number of a greedy answer, with one worked example before the question."""
    assert isinstance(item, Sum)
    prompt = subject.encode(f"{_SHOTS}Question: {item.question}\nAnswer:")
    if len(prompt) + _SUM_TOKENS > subject.most_tokens:
        return False
    text = continue_greedily(subject, prompt, _SUM_TOKENS, ("\nQuestion", "\n\n")).split("\n\n")[0]
    return last_number(text) == normal_number(item.answer)


def continue_greedily(subject: Subject, prompt: Sequence[int], most_tokens: int, stops: Sequence[str]) -> str:
    """What the model writes after a prompt, until an end of text or one of `stops` (after white space at the start)."""
    ids: list[int] = []
    logits = _forward(subject.executor, np.array(prompt, np.int32), 0, rows=1)
    for _ in range(most_tokens):
        token = int(logits[-1].argmax())
        if token in subject.tokenizer.eos_ids:
            break
        ids.append(token)
        text = subject.tokenizer.decode(ids).lstrip()
        if any(stop in text for stop in stops) or len(ids) == most_tokens:
            break
        logits = _forward(subject.executor, np.array([token], np.int32), len(prompt) + len(ids) - 1)
    return subject.tokenizer.decode(ids)


def _forward(executor: ForwardPass, tokens: Tokens, start: int, rows: int | None = None) -> np.ndarray:
    """Logits of the last `rows` of some tokens at positions from `start` on (all rows when None), a copy."""
    blocks = np.arange(executor.num_blocks, dtype=np.int32)[None, :]
    wanted = len(tokens) if rows is None else rows
    kept = []
    for begin in range(0, len(tokens), executor.max_rows):
        piece = tokens[begin : begin + executor.max_rows]
        first = max(len(tokens) - wanted - begin, 0)
        logits = executor.forward(
            ForwardBatch(
                token_ids=np.ascontiguousarray(piece),
                positions=np.arange(start + begin, start + begin + len(piece), dtype=np.int32),
                sequence_starts=np.array([0, len(piece)], np.int32),
                block_tables=blocks,
                logit_rows=np.arange(min(first, len(piece)), len(piece), dtype=np.int32),
            )
        )
        kept.append(logits.copy())
    return np.concatenate(kept)


def _shared_length(left: Sequence[int], right: Sequence[int]) -> int:
    pairs = enumerate(zip(left, right, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(left), len(right)))


ANSWERS: dict[type, Callable[[Subject, Item], bool]] = {Choice: _choose, LastWord: _guess_word, Sum: _work_out}
