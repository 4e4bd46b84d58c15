"""One text: streamed = whole = resumed anywhere = restarted anywhere = read by a second reader, with all at once.

What may be tried together: filters of every action (drawing away rolls back), stop strings, tokens that end inside
characters, flush policies, several choices, greedy and seeded, and a process that dies after any write.
"""

import asyncio
import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.speaking_executor import PROMPT, SpeakingExecutor, make_service
from vivace.engine.build import EngineConfig, build_service
from vivace.engine.service import ModelService
from vivace.server.chat_reply import ChatReply
from vivace.server.reply import Kept, with_seed
from vivace.server.reply_work import reply_work
from vivace.server.safety import Safety
from vivace.stream.journal import NoJournal, Progress, RunRecord, SavedRun
from vivace.stream.lifecycle import StreamStatus
from vivace.stream.log import LogEvent, NumberedLog
from vivace.stream.options import KEEP, RunOptions
from vivace.stream.run import StreamRun
from vivace.stream.safety.screen import ACTIONS, SafetyConfig, SafetyRules
from vivace.types.request import ChatMessage, GenerationRequest

RECORD = RunRecord("stream-x", "me", "chat", b"")
PIECES = st.sampled_from(
    ["bad", " ", "ly", "ab", "敏感", "敏", "词", "1381234", "5678", "👩‍👩‍👧", "é", "한", ". ", "o\n", "🇩🇪"]
)
TEXTS = st.lists(PIECES, min_size=1, max_size=9).map("".join)
STOPS = st.lists(st.sampled_from(["o\n", "ly", "感", "🇩🇪", ". b", "zz"]), max_size=2, unique=True)
TERMS = st.lists(st.sampled_from(["bad", "敏感", "ab", "感词", "1", "badly ab"]), max_size=3, unique=True)
Texts = dict[int, str]


@dataclass(frozen=True, slots=True)
class Trial:
    """One combination of everything."""

    request: GenerationRequest
    safety: SafetyConfig
    options: RunOptions


@dataclass(slots=True)
class Remembering(NoJournal):
    """What a journal had after each write: where a process may have died."""

    states: list[tuple[tuple[LogEvent, ...], dict[int, Progress]]] = field(default_factory=lambda: [((), {})])

    def append(self, stream_id: str, events: Sequence[LogEvent], progress: Mapping[int, Progress]) -> None:
        self.states.append(((*self.states[-1][0], *events), copy.deepcopy(dict(progress))))


def kept_of(trial: Trial) -> Kept[ChatReply]:
    return Kept(ChatReply("speaking", trial.request, False), trial.options)


def started(service: ModelService, trial: Trial, journal: Remembering, died: int = 0) -> StreamRun:
    """The stream, from its beginning or as a new process takes it up after write number `died` of the old one."""
    kept, (events, progress) = kept_of(trial), journal.states[died]
    kept.reply.restore(SavedRun(RECORD, StreamStatus.RUNNING, events, progress))
    work = reply_work(service, Safety(trial.safety), kept, copy.deepcopy(progress))
    log = NumberedLog(10**6, events)
    run = StreamRun(
        RECORD, work, kept.options, log, journal=Remembering() if died else journal, progress=copy.deepcopy(progress)
    )
    run.start()
    return run


async def read(run: StreamRun, starting_after: int = 0) -> list[LogEvent]:
    return [event async for event in run.read(starting_after) if event is not None]


def texts_after_each(events: Sequence[LogEvent], start: Texts | None = None) -> Iterator[Texts]:
    """What a reader has after each event, by choice."""
    texts = dict(start or {})
    for event in events:
        for choice in msgspec.json.decode(event.payload).get("choices", ()) if not event.name else ():
            index = choice["index"]
            texts[index] = texts.get(index, "") + (choice["delta"].get("content") or "")
        yield dict(texts)


def texts_of(events: Sequence[LogEvent]) -> Texts:
    return list(texts_after_each(events))[-1]


def check(service: ModelService, trial: Trial, cuts: Sequence[int]) -> None:
    """Hold every way of reading to one text, which passes the filter after every event."""
    rules = SafetyRules(trial.safety)

    async def scenario() -> None:
        [answer] = await Safety(trial.safety).complete_all(service, [trial.request])
        whole = {index: choice.text for index, choice in enumerate(answer.choices)}
        journal = Remembering()
        run = started(service, trial, journal)
        first, second = await asyncio.gather(read(run), read(run))
        assert texts_of(first) == whole
        assert second == first
        for texts in texts_after_each(first):
            assert not any(rules.holds_match(text) for text in texts.values())
        for cut in cuts:
            number = cut % (len(first) + 1)
            assert await read(run, number) == first[number:]
        for died in {cut % len(journal.states) for cut in cuts}:
            again = started(service, trial, journal, died)
            events = await read(again)
            held = journal.states[died][0]
            assert tuple(events[: len(held)]) == held
            assert [event.number for event in events] == list(range(1, len(events) + 1))
            assert texts_of(events) == whole
            assert again.log.status is run.log.status
            assert [event.name for event in events].count("end") == 1

    asyncio.run(scenario())


@pytest.fixture(scope="module")
def speaking() -> Iterator[tuple[ModelService, SpeakingExecutor]]:
    service, executor = make_service([0], context_length=512)
    yield service, executor
    service.close()


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked for, and where readers come back and processes die."""

    text: str
    stops: list[str]
    safety: SafetyConfig
    sampling: dict[str, float]
    options: RunOptions
    n: int
    cuts: list[int]


SAFETIES = st.builds(
    lambda terms, action: SafetyConfig(tuple(terms), ("phone_cn",), action), TERMS, st.sampled_from(ACTIONS)
)
OPTIONS = st.builds(
    RunOptions,
    st.just(KEEP),
    flush=st.sampled_from(["token", "word", "sentence"]),
    coalesce=st.booleans(),
    events=st.booleans(),
)
SAMPLINGS = st.sampled_from([{"temperature": 0}, {"temperature": 2, "seed": 3}, {"temperature": 2, "seed": 4}])
CUTS = st.lists(st.integers(0, 400), min_size=1, max_size=4)


@settings(max_examples=20, deadline=None)
@given(st.builds(Asked, TEXTS, STOPS, SAFETIES, SAMPLINGS, OPTIONS, st.sampled_from([1, 1, 2]), CUTS))
def test_everything_at_once_is_one_text(speaking: tuple[ModelService, SpeakingExecutor], asked: Asked) -> None:
    service, executor = speaking
    ids = {service.tokenizer.token_bytes(number): number for number in range(service.tokenizer.vocab_size)}
    executor.answer = (*(ids[bytes([byte])] for byte in asked.text.encode()), 2)
    fields = {**asked.sampling, "max_tokens": 60, "n": asked.n, **({"stop": asked.stops} if asked.stops else {})}
    request = with_seed(service.admit(PROMPT, fields, chat=True))
    check(service, Trial(request, asked.safety, asked.options), asked.cuts)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("action", ACTIONS)
def test_everything_at_once_is_one_text_of_a_real_model(smollm2_path: object, action: str) -> None:
    service = build_service(str(smollm2_path), EngineConfig(context_length=512))
    try:
        prompt = service.encode_chat([ChatMessage("user", "Describe a lighthouse.")])
        for seed in range(3):
            sampling = {"temperature": 0} if not seed else {"temperature": 1.2, "seed": seed}
            fields = {**sampling, "max_tokens": 40, "stop": ["\n\n", "light"], "n": 1 + seed % 2}
            request = with_seed(service.admit(prompt, fields, chat=True))
            safety = SafetyConfig(("the", "I", "and a", "is"), ("personal",), action)
            options = RunOptions(KEEP, flush=("token", "word", "sentence")[seed % 3], coalesce=bool(seed % 2))
            check(service, Trial(request, safety, options), [3 * seed, 17])
    finally:
        service.close()
