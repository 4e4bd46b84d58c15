"""Events become text: whole characters, nothing past a stop string, one end a choice, usage at the very end."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.speaking_executor import make_tokenizer
from vivace.engine.answers import AnswerBuilder, assemble
from vivace.telemetry.timeline import StageTimeline
from vivace.types.answer import AnswerChunk, Usage
from vivace.types.errors import EngineError
from vivace.types.events import EngineEvent, FailEvent, FinishEvent, FinishReason, TokenEvent, TokenLogprob
from vivace.types.request import GenerationRequest, StopParams
from vivace.types.speculation import SpeculationUsage

TOKENIZER = make_tokenizer()


def ids_of(text: str) -> list[int]:
    """One token a byte, so that characters and stop strings are cut everywhere."""
    return [TOKENIZER.encode(chr(byte), add_special=False)[0] if byte < 128 else _byte(byte) for byte in text.encode()]


def _byte(value: int) -> int:
    return next(token for token in range(TOKENIZER.vocab_size) if TOKENIZER.token_bytes(token) == bytes([value]))


def request_of(n: int = 1, *stops: str) -> GenerationRequest:
    return GenerationRequest("r", (1, 2, 3), stopping=StopParams(stop=stops), n=n)


def said(text: str, choice: int = 0) -> list[TokenEvent]:
    return [TokenEvent("r", choice, index, token) for index, token in enumerate(ids_of(text))]


def end(num_generated: int, reason: FinishReason = "stop", choice: int = 0) -> FinishEvent:
    return FinishEvent("r", choice, reason, num_prompt_tokens=3, num_generated=num_generated, num_cached_tokens=2)


def built(request: GenerationRequest, *events: EngineEvent) -> tuple[list[AnswerChunk], AnswerBuilder]:
    builder = AnswerBuilder(request, TOKENIZER)
    return list(builder.feed(events)), builder


def text_of(chunks: list[AnswerChunk], choice: int = 0) -> str:
    return "".join(chunk.text for chunk in chunks if chunk.choice == choice)


def test_characters_come_out_whole_and_the_end_tells_the_usage() -> None:
    events = said("aé你")
    chunks, builder = built(request_of(), *events, end(7))
    assert [chunk.text for chunk in chunks] == ["a", "", "é", "", "", "你", ""]
    assert [chunk.token_ids for chunk in chunks[:-1]] == [(event.token_id,) for event in events]
    assert [chunk.finish_reason for chunk in chunks] == [None] * 6 + ["stop"]
    assert chunks[-1].usage == Usage(prompt_tokens=3, completion_tokens=7, cached_tokens=2)
    assert builder.done


def test_bytes_that_never_become_a_character_come_out_at_the_end() -> None:
    chunks, _ = built(request_of(), *said("é")[:1], end(1, "length"))
    assert [chunk.text for chunk in chunks] == ["", "�"]
    assert chunks[-1].finish_reason == "length"


def test_a_stop_string_ends_the_text_asks_for_a_cancel_and_counts_nothing_after_it() -> None:
    request = request_of(1, "END")
    builder = AnswerBuilder(request, TOKENIZER)
    events = said("ab END cd")
    chunks = list(builder.feed(events[:5]))
    assert builder.take_cancels() == []
    chunks += builder.feed(events[5:])
    assert builder.take_cancels() == [0]
    assert builder.take_cancels() == []
    assert not builder.done
    chunks += builder.feed([end(9, "cancelled")])
    assert text_of(chunks) == "ab "
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["stop"]
    assert chunks[-1].usage == Usage(3, 6, 2)
    assert sum(len(chunk.token_ids) for chunk in chunks) == 6


def test_what_only_looked_like_a_stop_string_is_shown_at_the_end() -> None:
    chunks, _ = built(request_of(1, "END"), *said("so EN"), end(6))
    assert text_of(chunks) == "so EN"
    assert chunks[-1].text == "EN"


def test_choices_end_each_for_itself_and_usage_is_on_the_last_chunk_only() -> None:
    events = [*said("a", 1), *said("bX", 0), end(1, "length", 1), end(2, "cancelled", 0)]
    chunks, builder = built(request_of(2, "X"), *events)
    assert (text_of(chunks, 0), text_of(chunks, 1)) == ("b", "a")
    assert [(chunk.choice, chunk.finish_reason) for chunk in chunks if chunk.finish_reason] == [
        (1, "length"),
        (0, "stop"),
    ]
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].usage == Usage(3, 3, 2)
    assert builder.done


def test_what_drafts_did_is_told_for_all_choices_together() -> None:
    ones = (
        SpeculationUsage(3, 6, 4, 3, (3, 1), (2, 1), (1.0,), 4.0),
        SpeculationUsage(1, 1, 2, 0, (1,), (0,), (), 1.0),
    )
    ends = [replace(end(2, choice=choice), speculation=one) for choice, one in enumerate(ones)]
    chunks, _ = built(request_of(3), *ends, end(2, choice=2))
    usage = chunks[-1].usage
    assert usage is not None and usage.speculation == SpeculationUsage(4, 7, 6, 3, (4, 1), (2, 1), (1.0,), 5.0)
    assert usage.speculation.speedup == 7 / 5 and SpeculationUsage().speedup == 1


def test_a_failure_is_raised_and_nothing_more_is_expected() -> None:
    builder = AnswerBuilder(request_of(2), TOKENIZER)
    with pytest.raises(EngineError, match="broke"):
        list(builder.feed([*said("a"), FailEvent("r", EngineError("It broke."))]))
    assert builder.done


def test_logprobs_come_with_text_and_bytes_control_tokens_spelled_out() -> None:
    first, *_ = ids_of("é")
    event = TokenEvent("r", 0, 0, first, TokenLogprob(first, -0.5, ((first, -0.5), (2, -1.0))))
    (chunk,), _ = built(request_of(), event)
    (logprob,) = chunk.logprobs
    assert (logprob.text, logprob.token_bytes, logprob.logprob) == ("�", b"\xc3", -0.5)
    assert logprob.top[1] == ("<|im_end|>", b"<|im_end|>", -1.0)


@given(
    st.text(st.characters(codec="utf-8"), max_size=20),
    st.lists(st.text("ab你é", min_size=1, max_size=4), max_size=3),
    st.lists(st.integers(1, 5), max_size=20),
)
@settings(max_examples=300, deadline=None)
def test_text_is_the_answer_up_to_its_first_stop_string_however_it_arrives(
    text: str, stops: list[str], cuts: list[int]
) -> None:
    text += "ab你éab"
    request = request_of(1, *stops)
    builder = AnswerBuilder(request, TOKENIZER)
    events: list[EngineEvent] = [*said(text), end(len(text.encode()))]
    chunks = []
    for cut in [*cuts, len(events)]:
        chunks += builder.feed(events[:cut])
        events = events[cut:]
    ends = [(text.index(stop) + len(stop), text.index(stop)) for stop in stops if stop in text]
    assert text_of(chunks) == (text[: min(ends)[1]] if ends else text)
    answer = assemble(chunks, 1, StageTimeline("queued", 0))
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens == (len(text[: min(ends)[0]].encode()) if ends else len(text.encode()))


def test_an_answer_is_put_together_choice_by_choice() -> None:
    timeline = StageTimeline("queued", 0)
    timeline.end(2 * 10**9)
    events = [*said("ab", 0), *said("c", 1), end(2, "length", 0), end(1, "stop", 1)]
    answer = assemble(built(request_of(2), *events)[0], 2, timeline)
    assert [choice.text for choice in answer.choices] == ["ab", "c"]
    assert [choice.finish_reason for choice in answer.choices] == ["length", "stop"]
    assert answer.choices[0].token_ids == tuple(ids_of("ab"))
    assert answer.timings_s == {"queued": 2.0}
    with pytest.raises(EngineError, match="without an end"):
        assemble([], 1, timeline)
