"""Where chunks come from: an answer that is broken off, continued or taken back."""

import asyncio
from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from factories.drawn_answer import DrawnAnswer
from vivace.stream.journal import Progress
from vivace.stream.source import ChoiceSource, ChoiceSources
from vivace.types.answer import AnswerChunk, Usage
from vivace.types.request import GenerationRequest, SamplingParams

WORDS = ("one ", "two ", "three. ", "四", "五。", "six")


def request_of(seed: int = 0, n: int = 1) -> GenerationRequest:
    return GenerationRequest("r", (1, 2, 3), SamplingParams(seed=seed), n=n)


async def chunks_of(
    request: GenerationRequest, answer: DrawnAnswer, kept: Mapping[int, Progress] | None = None
) -> list[AnswerChunk]:
    sources = ChoiceSources(request, answer.generator, kept)
    told = [source.chunks() for source in sources.sources]
    return [chunk async for chunk in sources.joined(told)]


def texts(chunks: list[AnswerChunk], n: int) -> list[str]:
    return ["".join(chunk.text for chunk in chunks if chunk.choice == choice) for choice in range(n)]


def tokens(chunks: list[AnswerChunk], choice: int) -> list[int]:
    return [token_id for chunk in chunks if chunk.choice == choice for token_id in chunk.token_ids]


@given(seed=st.integers(0, 99), n=st.integers(1, 3), cuts=st.lists(st.integers(0, 20), min_size=3, max_size=3))
def test_an_answer_goes_on_from_any_progress(seed: int, n: int, cuts: list[int]) -> None:
    request, answer = request_of(seed, n), DrawnAnswer(WORDS)
    whole = asyncio.run(chunks_of(request, answer))
    kept = {
        choice: Progress(token_ids=tokens(whole, choice)[:cut], finish_reason="stop" if cut == 20 else None)
        for choice, cut in enumerate(cuts[:n])
    }
    again = DrawnAnswer(WORDS)
    rest = asyncio.run(chunks_of(request, again, kept))
    open_choices = [choice for choice in kept if kept[choice].finish_reason is None]
    assert [texts(rest, n)[choice] for choice in open_choices] == [texts(whole, n)[choice] for choice in open_choices]
    assert again.num_drawn == sum(20 - cut for cut in cuts[:n])
    assert [chunk.usage for chunk in rest if chunk.usage] == [Usage(3, 20 * n)]
    assert rest[-1].usage is not None


@given(seed=st.integers(0, 99), at=st.integers(1, 15), num_kept=st.integers(0, 15))
def test_what_is_taken_back_is_drawn_anew_from_the_tokens_that_stay(seed: int, at: int, num_kept: int) -> None:
    num_kept = min(num_kept, at - 1)

    async def scenario() -> None:
        answer = DrawnAnswer(WORDS)
        source = ChoiceSource(request_of(seed), 0, answer.generator)
        told: list[int] = []
        banned: list[int] = []
        async for chunk in source.chunks():
            told += chunk.token_ids
            if len(told) == at and source.attempt == 0:
                banned = [told[num_kept]]
                del told[num_kept:]
                source.take_back(num_kept, banned)
        assert told == source.token_ids
        assert len(told) == 20
        assert told[num_kept] not in banned
        more = answer.requests[-1].continuation
        assert more is not None
        assert (list(more.answer_ids), more.attempt) == (told[:num_kept], 1)
        after_restart = ChoiceSource(request_of(seed), 0, answer.generator, Progress(token_ids=told[:16], attempt=1))
        assert [token for chunk in [c async for c in after_restart.chunks()] for token in chunk.token_ids] == told

    asyncio.run(scenario())


def test_a_stop_reaches_an_answer_whatever_it_is_doing() -> None:
    async def scenario(stop_at: int, *, take_back: bool) -> str | None:
        answer = DrawnAnswer(WORDS)
        source = ChoiceSource(request_of(), 0, answer.generator)
        reason, num_seen = None, 0
        if stop_at == 0:
            source.stop()
        async for chunk in source.chunks():
            num_seen += 1
            if num_seen == stop_at:
                if take_back:
                    source.take_back(2)
                source.stop()
            reason = chunk.finish_reason
        return reason

    for stop_at, take_back in ((0, False), (1, False), (5, False), (5, True), (20, True)):
        assert asyncio.run(scenario(stop_at, take_back=take_back)) == "cancelled"
