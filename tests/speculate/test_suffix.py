"""Look-up in past answers: the automaton against a plain search, the store's bounds, tenants kept apart."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivace.speculate.suffix import AnswerStore, SuffixFollower, SuffixProposer
from vivace.speculate.suffix_automaton import SEPARATOR, SuffixAutomaton

texts = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=6)
queries = st.lists(st.integers(0, 3), max_size=25)


def longest_suffix(text: list[int], query: list[int]) -> int:
    for length in range(len(query), 0, -1):
        part = query[-length:]
        if any(text[start : start + length] == part for start in range(len(text) - length + 1)):
            return length
    return 0


@given(texts, queries)
def test_the_longest_suffix_is_found_and_its_continuation_is_real(answers: list[list[int]], query: list[int]) -> None:
    automaton = SuffixAutomaton()
    for answer in answers:
        automaton.add(answer)
    state, matched = 0, 0
    for index, token in enumerate(query, 1):
        state, matched = automaton.step(state, matched, token)
        assert matched == longest_suffix(automaton.text, query[:index])
    if matched:
        found = automaton.continuation(state, 4)
        part = [*query[len(query) - matched :], *found]
        assert any(automaton.text[start : start + len(part)] == part for start in range(len(automaton.text)))
        assert SEPARATOR not in found
    assert automaton.num_states <= 2 * len(automaton.text)


@given(texts, queries)
def test_a_match_held_while_the_automaton_grows_stays_true(answers: list[list[int]], query: list[int]) -> None:
    automaton = SuffixAutomaton()
    state, matched = 0, 0
    for index, token in enumerate(query, 1):
        if index <= len(answers):
            automaton.add(answers[index - 1])
        state, matched = automaton.step(state, matched, token)
        assert matched <= longest_suffix(automaton.text, query[:index])
        part = query[index - matched : index]
        if matched:
            assert any(automaton.text[start : start + matched] == part for start in range(len(automaton.text)))


def guess(follower: SuffixFollower, count: int) -> tuple[int, ...]:
    proposal = follower.propose(count)
    return proposal.tokens if proposal else ()


def test_an_answer_is_guessed_from_one_that_was_given_before() -> None:
    proposer = SuffixProposer()
    first = proposer.follow("a")
    first.extend([9, 8, 1, 2, 3, 4, 5])
    assert guess(first, 3) == ()
    first.finish([1, 2, 3, 4, 5])
    second = proposer.follow("a")
    second.extend([7, 7, 1, 2])
    assert guess(second, 2) == (3, 4)
    second.extend([3])
    assert guess(second, 9) == (4, 5)
    second.extend([4, 5])
    assert guess(second, 9) == ()


def test_one_token_in_common_is_not_enough() -> None:
    proposer = SuffixProposer()
    proposer.follow("a").finish([1, 2, 3])
    follower = proposer.follow("a")
    follower.extend([2])
    assert guess(follower, 2) == ()


def test_tenants_learn_nothing_from_one_another() -> None:
    proposer = SuffixProposer()
    proposer.follow("a").finish([1, 2, 3, 4])
    other = proposer.follow("b")
    other.extend([1, 2])
    assert guess(other, 2) == ()


def test_the_tenant_that_was_quiet_longest_is_forgotten() -> None:
    proposer = SuffixProposer(max_tenants=2)
    for tenant in ("a", "b", "a", "c"):
        proposer.follow(tenant).finish([1, 2, 3])
    for tenant, is_known in (("a", True), ("b", False)):
        follower = proposer.follow(tenant)
        follower.extend([1, 2])
        assert (guess(follower, 1) == (3,)) == is_known


@given(st.lists(st.integers(0, 30), max_size=40), st.integers(1, 60))
def test_a_store_never_holds_more_than_its_bound(lengths: list[int], bound: int) -> None:
    store = AnswerStore(bound)
    for length in lengths:
        store.add(list(range(length)))
        assert store.num_tokens <= bound


def test_a_follower_goes_on_when_the_store_has_turned_over() -> None:
    store = AnswerStore(20)
    store.add([1, 2, 3, 4, 5, 6])
    follower = SuffixFollower(store)
    follower.extend([1, 2])
    store.add([9, 9, 9, 9, 9, 9])
    assert guess(follower, 2) == (3, 4)
    store.add([1, 2, 7, 7, 7, 7])
    assert guess(follower, 2) == (7, 7)
    follower.extend([7])
    assert guess(follower, 1) == (7,)


@pytest.mark.parametrize("length", [40, 4000])
def test_a_long_prompt_in_one_piece_is_matched_by_its_end(length: int) -> None:
    proposer = SuffixProposer()
    proposer.follow("").finish([1, 2, 3, 4])
    follower = proposer.follow("")
    follower.extend([5] * length + [1, 2])
    assert guess(follower, 2) == (3, 4)
