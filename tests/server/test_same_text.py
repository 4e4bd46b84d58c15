"""However an answer is read, its text is the same: whole, streamed, resumed anywhere, by a second reader."""

import asyncio
from itertools import accumulate

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.speaking_executor import PROMPT, make_service
from vivace.engine.service import ModelService
from vivace.server.chat_reply import ChatReply
from vivace.server.reply import Kept
from vivace.server.reply_work import reply_work
from vivace.server.safety import Safety
from vivace.stream.graphemes import clusters
from vivace.stream.journal import RunRecord
from vivace.stream.log import NumberedLog
from vivace.stream.options import KEEP, RunOptions
from vivace.stream.run import StreamRun

PIECES = st.sampled_from(["a", "Hello", " ", ". ", "\n", "你", "好。", "é", "👩‍👩‍👧", "🇩🇪", "🎉", "ст", "नि", "한"])
TEXTS = st.lists(PIECES, min_size=1, max_size=12).map("".join)
STOPS = st.lists(st.sampled_from(["o", "好", "👧", ". \n", "el", "zz"]), max_size=2, unique=True)


def say_byte_by_byte(text: str) -> ModelService:
    """A service whose every token is one byte of the text, so that it is split wherever it can be."""
    service, executor = make_service([0], context_length=512)
    ids = {service.tokenizer.token_bytes(number): number for number in range(service.tokenizer.vocab_size)}
    executor.answer = (*(ids[bytes([byte])] for byte in text.encode()), 2)
    return service


async def deltas(run: StreamRun, starting_after: int) -> list[tuple[int, str]]:
    found = []
    async for event in run.read(starting_after):
        if event is not None and not event.name:
            choices = msgspec.json.decode(event.payload)["choices"]
            found.append((event.number, choices[0]["delta"].get("content", "")))
    return found


@settings(max_examples=60, deadline=None)
@given(TEXTS, STOPS, st.sampled_from(["token", "word", "sentence"]), st.booleans())
def test_the_text_is_the_same_however_it_is_read(text: str, stops: list[str], flush: str, coalesce: bool) -> None:
    service = say_byte_by_byte(text)
    try:
        fields = {"temperature": 0, "max_tokens": 400, "stop": stops or None}
        given_fields = {name: value for name, value in fields.items() if value is not None}
        request = service.admit(PROMPT, given_fields, chat=True)
        whole = service.complete(request).text

        async def scenario() -> tuple[list[tuple[int, str]], list[tuple[int, str]], list[list[tuple[int, str]]]]:
            again = service.admit(PROMPT, given_fields, chat=True)
            kept = Kept(ChatReply("speaking", again, False), RunOptions(KEEP, flush=flush, coalesce=coalesce))
            work = reply_work(service, Safety(), kept, {})
            run = StreamRun(RunRecord("stream-x", "me", "chat", b""), work, kept.options, NumberedLog(10**6))
            run.start()
            first, second = await asyncio.gather(deltas(run, 0), deltas(run, 0))
            rests = [await deltas(run, number) for number in range(run.log.last_number + 1)]
            return first, second, rests

        first, second, rests = asyncio.run(scenario())
    finally:
        service.close()
    stopped_at = min((place for stop in stops if (place := text.find(stop)) >= 0), default=len(text))
    assert whole == text[:stopped_at]
    assert "".join(delta for _, delta in first) == whole
    assert second == first
    for number, rest in enumerate(rests):
        assert rest == [pair for pair in first if pair[0] > number]
    seams = set(accumulate(len(delta) for _, delta in first))
    assert seams <= {0, *accumulate(map(len, clusters(whole)))}, "a character was torn"
