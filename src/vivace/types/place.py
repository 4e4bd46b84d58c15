"""Where a request is before its first token."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RequestPlace:
    """A moment's view of a request in work.

    Args:
        position: in the queue, 1 being next; 0 once it runs.
        expected_wait_s: until it starts, None where nothing is known; 0 once it runs.
        num_prompt: tokens of its prompt.
        num_computed: those of them that are computed or were found in the prefix cache.
    """

    position: int
    expected_wait_s: float | None
    num_prompt: int
    num_computed: int
