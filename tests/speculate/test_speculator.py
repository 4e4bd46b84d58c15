"""The speculator follows streams, learns from what they said, and keeps tenants apart."""

from collections.abc import Sequence

import numpy as np
import pytest

from vivace.speculate.config import SpeculationConfig
from vivace.speculate.costs import StepTimes
from vivace.speculate.speculator import TOKENS_BETWEEN_KINDS, EngineSpeculator
from vivace.types.draft import DecodeStep, DraftPlace


def place(
    tokens: Sequence[int], *, number: int = 0, room: int = 8, num_prompt: int = 4, tenant: str = ""
) -> DraftPlace:
    return DraftPlace(number, np.array(tokens, dtype=np.int32), num_prompt, room, tenant, ("", number))


def fixed(*proposers: str, count: int = 4) -> EngineSpeculator:
    return EngineSpeculator(SpeculationConfig(proposers or ("ngram",), "fixed", count))


def test_a_repeated_text_is_guessed_within_room_and_budget() -> None:
    tokens = [1, 2, 3, 4, 5, 6, 1, 2]
    assert fixed().propose([place(tokens)], 1, 100) == [(3, 4, 5, 6)]
    assert fixed().propose([place(tokens, room=2)], 1, 100) == [(3, 4)]
    assert fixed().propose([place(tokens, room=0)], 1, 100) == [()]
    places = [place(tokens), place([9, 8, 7], number=1), place(tokens, number=2)]
    assert fixed().propose(places, 3, 5) == [(3, 4, 5, 6), (), (3,)]
    assert fixed().propose([], 0, 5) == []


def test_what_turned_out_is_reported() -> None:
    speculator = fixed()
    tokens = [1, 2, 3, 4, 5, 6, 1, 2]
    speculator.propose([place(tokens)], 1, 100)
    speculator.propose([place([*tokens, 3, 4, 9])], 1, 100)
    report = speculator.report()
    assert speculator.report_by_kind().kinds["factual"] == speculator.report_by_kind().total == report
    assert (report.num_turns, report.num_tokens, report.num_drafted, report.num_accepted) == (1, 3, 4, 2)
    assert (report.tried_at, report.accepted_at) == ((1, 1, 1, 0), (1, 1, 0, 0))
    assert report.speedup == pytest.approx(3 / report.cost)


def test_an_ended_answer_helps_the_same_tenant_only() -> None:
    speculator = fixed("suffix")
    speculator.propose([place([7, 7, 7, 7, 1, 2, 3, 4, 5], tenant="a")], 1, 100)
    assert speculator.propose([], 0, 0) == []
    assert speculator.end("", 0, 5) is not None
    drafts = speculator.propose(
        [place([8, 1, 2], number=1, tenant="a"), place([8, 1, 2], number=2, tenant="b")], 2, 100
    )
    assert drafts == [(3, 4, 5), ()]


def test_of_several_guesses_the_one_that_fared_better_is_taken() -> None:
    speculator = fixed("ngram", "suffix", count=1)
    speculator.propose([place([0, 0, 0, 0, 5, 6, 2], number=99, num_prompt=4)], 1, 9)
    speculator.end("", 99, 3)
    tokens = [5, 6, 1]  # in this text 6 follows 5 and then 1; in the past answer it was 2
    for _ in range(12):
        tokens += [5, 6]
        (drafts,) = speculator.propose([place(tokens, num_prompt=3)], 1, 9)
        tokens += [1]
        speculator.propose([place(tokens, num_prompt=3)], 1, 9)
    assert drafts == (1,)


def test_measured_speculation_stops_on_guesses_that_fail_and_returns_when_they_do_not() -> None:
    """Guesses are wrong, then right; no trial is needed to notice, as guesses are watched for nothing."""
    speculator = EngineSpeculator(SpeculationConfig(("ngram",), "measured", 4))
    generator = np.random.default_rng(0)
    tokens = [1, 2, 3, 4]
    counts: list[int] = []

    def turn(following: int) -> None:
        (drafts,) = speculator.propose([place(tokens)], 1, 100)
        counts.append(len(drafts))
        elapsed_ms = 10.0 * (1 + 0.2 * len(drafts))
        speculator.note_step(DecodeStep(1 + len(drafts), 1, 0, 1 + (drafts[:1] == (following,)), elapsed_ms))
        tokens.append(following)

    for _ in range(150):
        turn(int(generator.integers(40)))
    failing = counts[50:]
    counts.clear()
    for _ in range(20):
        turn(7)
    assert sum(failing) <= 3 and counts[-1] > 0


def test_the_kind_of_text_is_asked_of_the_prompt_and_again_every_fifty_tokens() -> None:
    asked: list[int] = []

    def decode(ids: Sequence[int]) -> str:
        asked.append(len(ids))
        return "def f(x):\n    return x\n" if len(asked) > 1 else "Write a poem."

    speculator = EngineSpeculator(SpeculationConfig(("ngram",), "fixed", 2), decode)
    tokens = [1, 2, 3, 4]
    for _ in range(TOKENS_BETWEEN_KINDS + 5):
        speculator.propose([place(tokens)], 1, 100)
        tokens.append(len(tokens))
    assert asked == [4, TOKENS_BETWEEN_KINDS]
    kinds = speculator.report_by_kind().kinds
    assert kinds["creative"].num_turns == TOKENS_BETWEEN_KINDS and kinds["code"].num_turns > 0


def test_an_ended_answer_tells_its_drafts_by_position_and_over_time() -> None:
    speculator = fixed(count=2)
    tokens = [1] * 9
    for _ in range(40):
        assert speculator.propose([place(tokens, num_prompt=9)], 1, 100) == [(1, 1)]
        tokens += [1, 1, 1]
    usage = speculator.end("", 0, len(tokens) - 9)
    assert usage is not None and (usage.num_turns, usage.num_drafted) == (40, 80)
    assert usage.num_tokens == len(tokens) - 9 == 120 and usage.num_accepted == 80
    assert usage.tried_at == usage.accepted_at == (40, 40)
    assert usage.drafts_over_time == (2.0, 2.0, 2.0)
    assert speculator.end("", 0, 3) is None
    assert speculator.report() == usage


def test_a_text_that_turns_costs_little_and_recovers_within_twenty_tokens() -> None:
    """Copying, then a text without any repetition, then copying again; what is simulated is the cost of steps."""
    generator = np.random.default_rng(3)
    poem = generator.integers(5, 500, 60).tolist()
    novel = generator.permutation(np.arange(1000, 1400)).tolist()
    text = [*poem, *poem, *novel, *poem, *poem]
    speculator = EngineSpeculator(SpeculationConfig(("ngram",), "measured", 15))

    def cost(num_rows: int) -> float:
        return 8.0 * (1 + 0.15 * (num_rows - 1))

    speculator.assume_costs(StepTimes({rows: cost(rows) for rows in (1, 2, 4, 8, 16, 32)}))
    known, spent, drafts_at = 60, 0.0, {}
    spent_at = {known: 0.0}
    while known < len(text):
        (drafts,) = speculator.propose([place(text[:known], num_prompt=60, room=len(text) - known - 1)], 1, 100)
        drafts_at[known] = len(drafts)
        spent += cost(1 + len(drafts))
        stood = next((i for i, draft in enumerate(drafts) if draft != text[known + i]), len(drafts))
        speculator.note_step(DecodeStep(1 + len(drafts), 1, 0, 1 + stood, cost(1 + len(drafts))))
        known += stood + 1
        spent_at[known] = spent

    def plain_over(start: int, end: int) -> float:
        inside = [at for at in spent_at if start <= at <= end]
        return (inside[-1] - inside[0]) * cost(1) / (spent_at[inside[-1]] - spent_at[inside[0]])

    turned = 120
    assert plain_over(65, turned) > 2.0
    assert sum(count > 0 for at, count in drafts_at.items() if turned + 20 <= at < turned + 400) <= 2
    assert plain_over(turned, turned + 400) > 0.97
    back = turned + 400
    assert any(count > 0 for at, count in drafts_at.items() if back < at <= back + 20)
    assert plain_over(back + 20, len(text)) > 2.0


def looks_of(speculator: EngineSpeculator, num_steps: int, num_streams: int) -> int:
    """Steps of so many streams, each repeating itself, in which drafts were looked for; none takes time."""
    num_looks = 0
    for step in range(num_steps):
        if not speculator.rests(num_streams):
            tokens = [1, 2, 3] * (3 + step)
            drafts = speculator.propose([place(tokens, number=index) for index in range(num_streams)], num_streams, 99)
            assert num_streams == 1 or not any(drafts)
            num_looks += 1
    return num_looks


def test_company_in_which_no_draft_can_pay_is_hardly_looked_at_until_it_gets_smaller() -> None:
    speculator = EngineSpeculator(SpeculationConfig(("ngram",), "measured", 8))
    speculator.assume_costs(StepTimes({1: 5.0, 2: 5.2, 8: 6.0, 16: 24.0, 32: 48.0}))
    assert looks_of(speculator, 256, num_streams=16) == 0
    assert looks_of(speculator, 20, num_streams=1) == 20


def test_what_is_learned_on_a_busy_machine_brings_no_drafts_where_they_cannot_pay() -> None:
    def drafted(times: StepTimes) -> bool:
        speculator = EngineSpeculator(SpeculationConfig(("ngram",), "measured", 8))
        speculator.assume_costs(times)
        places = [place([1, 2, 3] * 9, number=index, num_prompt=1) for index in range(16)]
        for _ in range(64):  # others slow down the plain steps, and no step with drafts
            speculator.note_step(DecodeStep(16, 16, 0, 16, 48.0))
            speculator.note_step(DecodeStep(32, 16, 0, 32, 30.0))
        looks = [speculator.propose(places, 16, 128) for _ in range(4) if not speculator.rests(16)]
        return any(map(any, looks))

    dear = {1: 5.0, 8: 14.0, 16: 25.0, 32: 49.0}
    assert not drafted(StepTimes(dear))
    assert drafted(StepTimes(dear | {32: 26.0}))
