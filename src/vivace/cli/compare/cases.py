"""What is measured: how many streams, how long the prompts, how many tokens each; and the text of the prompts."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

_WORDS = (
    "the a quiet river city morning teacher window music garden train letter engine winter story question answer "
    "market light bridge island doctor paper forest summer captain silver kitchen village mountain and but while "
    "because before after near under with without reads writes finds keeps opens follows remembers builds carries"
)


@dataclass(frozen=True, slots=True)
class Case:
    """Prompts of `prompt_tokens` on `streams` streams, continued by `new_tokens` each (the prompt gives the first)."""

    streams: int
    prompt_tokens: int
    new_tokens: int

    @property
    def name(self) -> str:
        """As the report calls it."""
        return f"{self.streams} x ({self.prompt_tokens} read, {self.new_tokens} written)"

    @property
    def length(self) -> int:
        """Most tokens of a stream."""
        return self.prompt_tokens + self.new_tokens


_PROMPTS = (Case(1, 128, 1), Case(1, 512, 97), Case(1, 2048, 1))
_STREAMS = (Case(8, 256, 129), Case(16, 256, 129))

CASES: Mapping[str, tuple[Case, ...]] = {
    "quick": (Case(1, 512, 97),),
    "prompts": _PROMPTS,
    "streams": _STREAMS,
    "sixteen": _STREAMS[1:],
    "full": _PROMPTS + _STREAMS,
}


def figures_of(case: Case, times: Sequence[Sequence[float]]) -> dict[str, float]:
    """Tokens a second of a run.

    Reading counts from the start to the moment when every stream has its first token; writing from then until the last
    token of all, whatever was written before then not counted.

    Args:
        case: what ran.
        times: seconds from the start to each token, per stream.
    """
    all_reading_s = max(stream[0] for stream in times)
    end_s = max(stream[-1] for stream in times)
    figures = {f"{_streams(case)}read {case.prompt_tokens}": case.streams * case.prompt_tokens / all_reading_s}
    if case.new_tokens > 1 and end_s > all_reading_s:
        written = case.streams * case.new_tokens - sum(
            _tokens_until(all_reading_s, stream, case.new_tokens) for stream in times
        )
        figures[f"{_streams(case)}write {case.new_tokens - 1}"] = written / (end_s - all_reading_s)
    return figures


def _tokens_until(moment_s: float, stream: Sequence[float], new_tokens: int) -> float:
    """Tokens that had come by a moment; where an engine tells pieces and not tokens, each counts its share."""
    return sum(time_s <= moment_s for time_s in stream) * new_tokens / len(stream)


def _streams(case: Case) -> str:
    return "" if case.streams == 1 else f"{case.streams} streams, "


def prompts_of(case: Case, turn: int, encode: Callable[[str], Sequence[int]]) -> list[list[int]]:
    """The prompts of one turn: sentences of plain words, other ones on each stream and turn, the same for every peer.

    Args:
        case: how many and how long.
        turn: number of the turn.
        encode: text to ids.
    """
    prompts = []
    for stream in range(case.streams):
        draw = random.Random(f"{turn}-{stream}-{case.prompt_tokens}")
        words = draw.choices(_WORDS.split(), k=case.prompt_tokens + 8)  # a word is a token or more
        prompts.append(list(encode(" ".join(words)))[: case.prompt_tokens])
    return prompts
