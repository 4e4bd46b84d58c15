"""A chat that outgrows the context loses whole turns, keeps its beginning, and its prompt mostly just grows."""

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vivace.engine.long_chat import FittedChat, check_long_chat, prompt_room, truncate
from vivace.types.errors import RequestError
from vivace.types.request import ChatMessage


def encode(messages: Sequence[ChatMessage]) -> tuple[int, ...]:
    """Four tokens around each message, one a character, and the opening of the answer."""
    ids: list[int] = []
    for message in messages:
        ids += [1, ord(message.role[0]), 2, *message.content.encode(), 3]
    return (*ids, 1, ord("a"), 2)


def fit(messages: Sequence[ChatMessage], room: int) -> FittedChat:
    return truncate(messages, room, encode, len)


def conversation(sizes: Sequence[tuple[int, int]], system: str = "be kind") -> list[ChatMessage]:
    """Turns of (question, answer) lengths; the last answer is still to come."""
    messages = [ChatMessage("system", system)] if system else []
    for number, (asked, answered) in enumerate(sizes):
        messages.append(ChatMessage("user", f"q{number:03}" + "x" * asked))
        messages.append(ChatMessage("assistant", f"a{number:03}" + "y" * answered))
    return messages[:-1]


def text(fitted: FittedChat) -> str:
    return bytes(fitted.prompt_ids).decode()


def test_a_chat_that_fits_is_left_alone() -> None:
    messages = conversation([(10, 10)] * 3)
    assert fit(messages, 500) == FittedChat(encode(messages))


def test_whole_turns_after_the_first_are_dropped_and_counted() -> None:
    messages = conversation([(20, 20)] * 20)
    fitted = fit(messages, 500)
    said = text(fitted)
    assert len(fitted.prompt_ids) <= 500
    assert "be kind" in said and "q000" in said and "a000" in said and "q019" in said
    for number in range(19):
        assert (f"q{number:03}" in said) == (f"a{number:03}" in said)
    assert fitted.dropped_tokens == len(encode(messages)) - len(fitted.prompt_ids) > 0


turns = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 120)), min_size=2, max_size=40)


@given(turns, st.integers(300, 800))
@settings(max_examples=60, deadline=None)
def test_from_turn_to_turn_the_prompt_grows_until_the_room_is_full(sizes: list[tuple[int, int]], room: int) -> None:
    fitted = [fit(conversation(sizes[: length + 1]), room) for length in range(len(sizes))]
    num_moves = 0
    for before, after in itertools.pairwise(fitted):
        assert len(after.prompt_ids) <= room
        assert after.dropped_tokens >= 0
        num_moves += after.prompt_ids[: len(before.prompt_ids) - 3] != before.prompt_ids[:-3]
    told = sum(asked + answered + 24 for asked, answered in sizes)
    # every move makes about 40 % of the room free, less the one turn that did not fit
    assert num_moves <= 1 + told / max(0.4 * room - 200, 60)


def test_the_first_turn_goes_when_it_leaves_no_room_and_the_last_never_does() -> None:
    messages = conversation([(400, 50), (10, 10), (300, 0)])
    said = text(fit(messages, 450))
    assert "q000" not in said and "q002" in said and "be kind" in said


def test_a_last_turn_that_is_too_long_is_left_to_admission() -> None:
    assert len(fit(conversation([(10, 10), (900, 0)]), 450).prompt_ids) > 450
    assert len(fit(conversation([(900, 0)]), 450).prompt_ids) > 450


def test_room_is_kept_for_the_answer() -> None:
    assert prompt_room(2000, 100) == 1900
    assert prompt_room(8192, None) == 8192 - 512
    assert prompt_room(400, None) == 300


def test_unknown_kinds_are_refused() -> None:
    assert check_long_chat("truncate") == "truncate"
    for kind in ("forget", 3, None):
        with pytest.raises(RequestError):
            check_long_chat(kind)
