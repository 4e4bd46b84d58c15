"""What drafts really brought decides whether they are looked for, whatever was estimated."""

import pytest

from vivace.speculate.guard import ALLOWANCE, FIRST_PAUSE, LEAST_CREDIT, LONGEST_PAUSE, MOST_CREDIT, Guard


def play(guard: Guard, num_steps: int, gain: float, num_streams: int = 4) -> int:
    """Steps that are drafted where the guard lets them, each worth `gain` times what it takes; how many were."""
    num_drafted = 0
    for _ in range(num_steps):
        if not guard.takes_pause(num_streams):
            guard.note(num_streams, num_streams, 10.0, 10.0 * gain)
            num_drafted += 1
        else:
            guard.note_plain(num_streams, 0.0, 10.0)
    return num_drafted


def test_drafts_that_pay_are_never_stopped() -> None:
    assert play(Guard(), 5000, 1.01) == 5000


def test_drafts_that_lose_take_a_share_of_steps_that_falls() -> None:
    guard = Guard()
    first = play(guard, 1000, 0.8)
    play(guard, 20_000, 0.8)
    later = play(guard, 10_000, 0.8)
    assert first < 80 and later < 10_000 / 50


def test_a_loss_is_seen_at_once_and_forgiven_when_drafts_pay_again() -> None:
    guard = Guard()
    assert play(guard, 40, 0.8) < 20
    play(guard, FIRST_PAUSE, 1.2)
    assert play(guard, 1000, 1.2) == 1000
    play(guard, 60, 0.5)
    assert play(guard, FIRST_PAUSE, 1.2) < FIRST_PAUSE  # the first pause again, and not the longest
    assert play(guard, LONGEST_PAUSE, 1.2) >= LONGEST_PAUSE - 2  # the purse may first have to fill


def test_what_loses_in_large_company_goes_on_alone() -> None:
    guard = Guard()
    play(guard, 60, 0.8, num_streams=16)
    assert play(guard, 50, 1.3, num_streams=1) == 50
    assert play(guard, 10, 1.3, num_streams=12) == 0


def test_a_purse_lets_nobody_look_who_has_lost_it_and_fills_by_plain_steps() -> None:
    guard = Guard()
    assert guard.credit(4) == MOST_CREDIT
    guard.pay(4, MOST_CREDIT)
    assert guard.takes_pause(4) and guard.credit(4) == 0 and not guard.takes_pause(1)
    steps = 0
    while guard.takes_pause(4):
        guard.note_plain(4, 0.0, 10.0)
        steps += 1
    assert steps == pytest.approx(LEAST_CREDIT / ALLOWANCE, abs=1)
    guard.pay(4, -100.0)
    assert guard.credit(4) == MOST_CREDIT
