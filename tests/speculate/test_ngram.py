"""Look-up in the sequence itself."""

from hypothesis import given
from hypothesis import strategies as st

from vivace.speculate.ngram import MAX_MATCH, NgramFollower, NgramProposer
from vivace.speculate.proposal import evidence_of


def following(tokens: list[int], count: int) -> tuple[int, ...]:
    follower = NgramProposer().follow("")
    follower.extend(tokens)
    proposal = follower.propose(count)
    return proposal.tokens if proposal else ()


def test_what_followed_the_same_pair_is_guessed() -> None:
    assert following([1, 2, 3, 4, 9, 1, 2], 3) == (3, 4, 9)


def test_the_longest_match_wins_over_a_newer_one() -> None:
    assert following([7, 1, 2, 3, 5, 1, 2, 4, 7, 1, 2], 1) == (3,)


def test_the_newest_of_equal_matches_wins() -> None:
    assert following([1, 2, 3, 9, 1, 2, 4, 8, 1, 2], 1) == (4,)


def test_a_repetition_goes_on_with_its_period() -> None:
    assert following([5, 6, 5, 6, 5, 6], 5) == (5, 6, 5, 6, 5)
    assert following([3, 3, 3], 4) == (3, 3, 3, 3)


def test_where_no_pair_stood_before_the_last_token_alone_is_looked_up() -> None:
    assert following([4, 1, 2, 1], 2) == (2, 1)
    assert following([1, 2, 9, 1, 3, 8, 1], 1) == (3,)


def test_without_an_earlier_token_there_is_no_guess() -> None:
    assert following([], 4) == following([1], 4) == following([1, 2], 4) == following([1, 2, 3, 4], 4) == ()
    assert following([1, 2, 3, 1, 2], 0) == ()


def test_more_matched_tokens_are_more_evidence() -> None:
    follower = NgramFollower()
    follower.extend([*range(40), *range(20)])
    proposal = follower.propose(2)
    assert proposal is not None and proposal.tokens == (20, 21)
    assert proposal.evidence == evidence_of(MAX_MATCH) == 4
    assert [evidence_of(length) for length in (1, 2, 3, 4, 5, 8, 9)] == [0, 1, 2, 2, 3, 3, 4]


@given(st.lists(st.lists(st.integers(0, 3), max_size=9), max_size=8), st.integers(1, 6))
def test_pieces_give_the_same_guess_as_the_whole_and_it_really_followed(pieces: list[list[int]], count: int) -> None:
    follower = NgramFollower()
    for piece in pieces:
        follower.extend(piece)
    whole = [token for piece in pieces for token in piece]
    proposal = follower.propose(count)
    assert (proposal.tokens if proposal else ()) == following(whole, count)
    earlier = [end for end in range(2, len(whole)) if whole[end - 2 : end] == whole[-2:]]
    earlier = earlier or [end for end in range(1, len(whole)) if whole[end - 1] == whole[-1]]
    assert (proposal is None) == (not earlier or len(whole) < 3)
    if proposal:
        assert len(proposal.tokens) == count
        assert any((whole + whole[end:] * count)[end : end + 1] == [proposal.tokens[0]] for end in earlier)
