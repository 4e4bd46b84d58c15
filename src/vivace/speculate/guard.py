"""The last word on whether looking for drafts pays: what steps really brought, against what plain ones would have.

Estimates of costs and of acceptance can err together; accounts cannot. They are kept apart for each size of company, as
16 streams pay for drafts that one stream has for little.

* A purse bounds the loss, whatever texts and estimates do. It holds MOST_CREDIT plain steps, gets what drafts gain and
  ALLOWANCE of all work, and pays for looks and losses. A step that could take more than it holds is not made. So what
  is worth T plain steps takes at most T (1 + ALLOWANCE) + MOST_CREDIT of them, over any stretch of an engine's life:
  not below 0.97 of plain decoding from ENOUGH_TOKENS tokens a stream on. The leaky bucket of networks, with time in it.
* A window of steps with drafts ends a loss sooner: after one nobody looks for some steps, and for longer each time.
"""

from dataclasses import dataclass

MEMORY = 0.95  # about the last 20 steps with drafts decide
ENOUGH = 10.0  # of them, before anything is decided
BREAK_EVEN = 1.0
FIRST_PAUSE, LONGEST_PAUSE = 64, 1024  # steps
ALLOWANCE = 0.01  # of the time of plain decoding that may be lost for ever
MOST_CREDIT = 4.0  # plain steps that may be lost besides
LEAST_CREDIT = 0.25  # plain steps without which nobody looks
ENOUGH_TOKENS = 1000
HICCUP = 2.0  # a step that took so many times what it should says nothing about drafts


@dataclass(slots=True)
class _Account:
    """Of one size of company. `worth_ms`: what plain decoding would have taken for the tokens that came."""

    worth_ms: float = 0.0
    spent_ms: float = 0.0
    weight: float = 0.0
    pause: int = FIRST_PAUSE
    num_paused: int = 0
    credit: float = MOST_CREDIT

    def pay(self, cost: float) -> None:
        self.credit = min(MOST_CREDIT, self.credit - cost)


class Guard:
    """Keeps the accounts of an engine."""

    def __init__(self) -> None:
        self._accounts: dict[int, _Account] = {}

    def takes_pause(self, num_streams: int) -> bool:
        """Whether a step of so many streams goes by without drafts; to be asked once a step."""
        account = self._of(num_streams)
        if account.num_paused == 0:
            return account.credit < LEAST_CREDIT
        account.num_paused -= 1
        return True

    def credit(self, num_streams: int) -> float:
        """Most plain steps that the next step may take beside one."""
        return max(0.0, self._of(num_streams).credit)

    def pay(self, num_streams: int, cost: float) -> None:
        """So many plain steps were lost, or gained where it is below 0, beside what `note` is told."""
        self._of(num_streams).pay(cost)

    def note_plain(self, num_streams: int, looking_ms: float, plain_ms: float) -> None:
        """A step without drafts, of which looking for some took a part."""
        self._of(num_streams).pay(looking_ms / plain_ms - ALLOWANCE)

    def note(self, num_streams: int, num_tokens: int, spent_ms: float, plain_ms: float) -> None:
        """A step with drafts took so long, looking for them included; one without them would have taken `plain_ms`."""
        account = self._of(num_streams)
        worth = num_tokens / num_streams
        account.pay(spent_ms / plain_ms - worth * (1 + ALLOWANCE))
        account.worth_ms = account.worth_ms * MEMORY + plain_ms * worth
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
