"""What the work of a sequence takes, from measured step costs and learned lengths. Nothing measured yet counts as 0."""

from vivace.schedule.completion import CompletionEstimator
from vivace.schedule.sequence import Sequence
from vivace.schedule.step_cost import StepCostModel

OVERRUN_SHARE = 0.25  # an answer that has outgrown its estimate is expected to go on for so much of its length


class Estimates:
    """Seconds of work that sequences still need.

    Args:
        steps: step costs.
        completion: lengths of answers.
    """

    def __init__(self, steps: StepCostModel, completion: CompletionEstimator) -> None:
        self.steps = steps
        self.completion = completion

    def prompt_s(self, sequence: Sequence) -> float:
        """Seconds to compute what is known already, alone."""
        return self.rows_s(sequence.num_computed, sequence.num_pending)

    def rows_s(self, start: int, count: int) -> float:
        """Seconds for `count` rows of one sequence from position `start` on, without the fixed cost of steps."""
        cost = self.steps.cost
        if cost is None:
            return 0.0
        return (cost.per_row_ms * count + cost.per_pair_ms * count * (start + count / 2)) / 1e3

    def remaining_tokens(self, sequence: Sequence) -> float:
        """Tokens that the answer will still get."""
        remaining = sequence.expected_tokens - sequence.num_generated
        if remaining < 1:
            remaining = max(1.0, OVERRUN_SHARE * sequence.num_generated)
        return min(remaining, sequence.max_known - sequence.num_known)

    def completion_s(self, sequence: Sequence) -> float:
        """Seconds until the sequence is done if it is served in every step from now on, alone."""
        cost = self.steps.cost
        if cost is None:
            return 0.0
        num_tokens = self.remaining_tokens(sequence)
        token_ms = cost.step_ms(1, sequence.num_known + num_tokens / 2)
        return self.prompt_s(sequence) + num_tokens * token_ms / 1e3
