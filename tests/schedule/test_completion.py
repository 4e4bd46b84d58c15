"""Lengths of answers are learned by kind and size, and the error is told."""

from vivace.schedule.completion import MAX_CELLS, PRIOR_TOKENS, CompletionEstimator
from vivace.types.request import GenerationRequest, ServiceLevel, StopParams


def request(kind: str = "", num_prompt: int = 10, max_tokens: int | None = 1000) -> GenerationRequest:
    level = ServiceLevel(kind=kind)
    return GenerationRequest("r", (1,) * num_prompt, stopping=StopParams(max_tokens), service_level=level)


def test_without_history_the_prior_holds_within_max_tokens() -> None:
    estimator = CompletionEstimator()
    assert estimator.expect(request()) == PRIOR_TOKENS
    assert estimator.expect(request(max_tokens=5)) == 5
    assert estimator.mean_error_tokens is None and estimator.relative_error is None


def test_kinds_and_sizes_are_told_apart() -> None:
    estimator = CompletionEstimator()
    for _ in range(100):
        for kind, num_prompt, length in (("title", 500, 8), ("essay", 20, 600), ("essay", 500, 300)):
            asked = request(kind, num_prompt)
            estimator.learn(asked, estimator.expect(asked), length)
    assert abs(estimator.expect(request("title", 500)) - 8) < 10
    assert abs(estimator.expect(request("essay", 20)) - 600) < 30
    assert abs(estimator.expect(request("essay", 500)) - 300) < 30


def test_an_unknown_size_leans_on_its_kind() -> None:
    estimator = CompletionEstimator()
    for _ in range(100):
        for kind, length in (("title", 8), ("essay", 600)):
            asked = request(kind)
            estimator.learn(asked, estimator.expect(asked), length)
    assert estimator.expect(request("title", 3000)) < 30
    assert estimator.expect(request("essay", 3000)) > 400


def test_the_error_falls_as_answers_come() -> None:
    estimator = CompletionEstimator()
    asked = request()
    estimator.learn(asked, estimator.expect(asked), 500)
    first = estimator.mean_error_tokens
    for _ in range(300):
        estimator.learn(asked, estimator.expect(asked), 500)
    last = estimator.mean_error_tokens
    assert first is not None and last is not None and last < first / 10
    assert estimator.relative_error is not None and estimator.relative_error < 0.1


def test_kinds_that_a_client_makes_up_take_no_memory_without_end() -> None:
    estimator = CompletionEstimator()
    for number in range(3 * MAX_CELLS):
        estimator.learn(request(f"kind{number}"), 1, 1)
    assert len(estimator._cells) == len(estimator._kinds) == MAX_CELLS
