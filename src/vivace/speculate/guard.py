"""The last word on whether looking for drafts pays: what steps really brought, against what plain ones would have.

Estimates of costs and of acceptance can err together; the account of a window of steps cannot. It is kept apart for
each size of company, as 16 streams pay for drafts that one stream has for little. After a loss nobody looks for some
steps, and for longer each time: so a wrong estimate costs at most a few percent at first and almost nothing later.
"""

from dataclasses import dataclass

MEMORY = 0.95  # about the last 20 steps with drafts decide
ENOUGH = 10.0  # of them, before anything is decided
BREAK_EVEN = 1.0
FIRST_PAUSE, LONGEST_PAUSE = 64, 1024  # steps


@dataclass(slots=True)
class _Account:
    """Of one size of company. `worth_ms`: what plain decoding would have taken for the tokens that came."""

    worth_ms: float = 0.0
    spent_ms: float = 0.0
    weight: float = 0.0
    pause: int = FIRST_PAUSE
    num_paused: int = 0


class Guard:
    """Keeps the accounts of an engine."""

    def __init__(self) -> None:
        self._accounts: dict[int, _Account] = {}

    def takes_pause(self, num_streams: int) -> bool:
        """Whether a step of so many streams goes by without drafts; to be asked once a step."""
        account = self._of(num_streams)
        if account.num_paused == 0:
            return False
        account.num_paused -= 1
        return True

    def note(self, num_streams: int, num_tokens: int, spent_ms: float, plain_ms: float) -> None:
        """A step with drafts took so long, looking for them included; one without them would have taken `plain_ms`."""
        account = self._of(num_streams)
        account.worth_ms = account.worth_ms * MEMORY + plain_ms * num_tokens / num_streams
        account.spent_ms = account.spent_ms * MEMORY + spent_ms
        account.weight = account.weight * MEMORY + 1
        if account.weight < ENOUGH:
            return
        if account.worth_ms < account.spent_ms * BREAK_EVEN:
            account.num_paused = account.pause
            account.pause = min(2 * account.pause, LONGEST_PAUSE)
            account.worth_ms = account.spent_ms = account.weight = 0.0
        else:
            account.pause = FIRST_PAUSE

    def _of(self, num_streams: int) -> _Account:
        return self._accounts.setdefault((num_streams - 1).bit_length(), _Account())
