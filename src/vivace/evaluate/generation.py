"""What a model writes by itself: does it stop, does it repeat itself, are its answers as long as they were.

Few bits show here first: a model that has lost little perplexity may still loop. Greedy answers to the same prompts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from vivace.engine.service import ModelService
from vivace.types.request import ChatMessage

PROMPTS = (
    "What is the capital of France?",
    "Explain in two sentences why the sky is blue.",
    "Write a short poem about the sea.",
    "List three things to pack for a day in the mountains.",
    "Write a Python function that adds two numbers.",
    "Tell me a very short story about a lost key.",
    "How do I boil an egg?",
    "What is the difference between a lake and a river?",
    "用一句话介绍一下北京。",
    "请写一首关于春天的短诗。",
    "怎样泡一杯绿茶？",
    "请列出三种水果。",
)
_REPEAT = 4  # tokens in a row that count as repeated when they come again
_LOOPS = 0.5  # share of repeated pieces from which on an answer is called a loop


@dataclass(frozen=True, slots=True)
class GenerationFigures:
    """Of one model's answers.

    Attributes:
        num_answers: prompts answered.
        never_stop: share that ended only because no more tokens were allowed.
        loops: share of answers of which at least half the runs of four tokens had been said before.
        repeated: mean share of such runs.
        mean_tokens: mean length.
    """

    num_answers: int
    never_stop: float
    loops: float
    repeated: float
    mean_tokens: float


@dataclass(frozen=True, slots=True)
class GenerationComparison:
    """Two models' answers: their figures, how much longer the model's are, and how long they say the same.

    `most_tokens` is where answers were cut off; `same_tokens` the mean number of tokens before the first difference;
    `identical` the share of equal answers.
    """

    most_tokens: int
    model: GenerationFigures
    reference: GenerationFigures | None
    length_drift: float | None
    same_tokens: float | None
    identical: float | None


Answers = list[tuple[tuple[int, ...], bool, str]]
"""(tokens, stopped by itself, text) of each prompt."""


def write_answers(service: ModelService, prompts: Sequence[str], max_tokens: int) -> Answers:
    """Greedy answers through the model's chat template."""
    settings = {"temperature": 0.0, "max_tokens": max_tokens}
    requests = [service.admit_chat([ChatMessage("user", prompt)], settings) for prompt in prompts]
    choices = [answer.choices[0] for answer in service.complete_all(requests)]
    return [(choice.token_ids, choice.finish_reason == "stop", choice.text) for choice in choices]


def compare_generation(own: Answers, reference: Answers | None, most_tokens: int) -> GenerationComparison:
    """Figures of one model's answers, beside another's to the same prompts, all cut off at `most_tokens`."""
    figures = _figures(own)
    if reference is None:
        return GenerationComparison(most_tokens, figures, None, None, None, None)
    other = _figures(reference)
    drift = figures.mean_tokens / other.mean_tokens - 1 if other.mean_tokens else None
    shared = [_shared(a[0], b[0]) for a, b in zip(own, reference, strict=True)]
    identical = [a[0] == b[0] for a, b in zip(own, reference, strict=True)]
    same_tokens, identical_share = sum(shared) / len(shared), sum(identical) / len(identical)
    return GenerationComparison(most_tokens, figures, other, drift, same_tokens, identical_share)


def repeated_share(ids: Sequence[int]) -> float:
    """Share of runs of four tokens that an answer had said before; 0 of a short one."""
    runs = [tuple(ids[start : start + _REPEAT]) for start in range(len(ids) - _REPEAT + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def _figures(answers: Answers) -> GenerationFigures:
    count = len(answers)
    shares = [repeated_share(ids) for ids, _, _ in answers]
    return GenerationFigures(
        num_answers=count,
        never_stop=sum(not stopped for _, stopped, _ in answers) / count,
        loops=sum(share >= _LOOPS for share in shares) / count,
        repeated=sum(shares) / count,
        mean_tokens=sum(len(ids) for ids, _, _ in answers) / count,
    )


def _shared(left: Sequence[int], right: Sequence[int]) -> int:
    pairs = enumerate(zip(left, right, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(left), len(right)))
