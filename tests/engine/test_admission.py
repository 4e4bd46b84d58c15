"""Requests are checked once, where they come in: every refusal names the field and says what to do."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vivace.engine.admission import PARAMETER_NAMES, RequestLimits, build_request
from vivace.types.errors import ContextLengthError, RequestError
from vivace.types.request import GenerationRequest, SamplingParams, ServiceLevel, StopParams

LIMITS = RequestLimits(vocab_size=100, context_length=50)


def admit(prompt: object = (1, 2, 3), **parameters: object) -> GenerationRequest:
    return build_request(prompt, parameters, LIMITS)  # type: ignore[arg-type]


def test_defaults_are_those_of_the_types() -> None:
    request = admit(temperature=None, stop=None)
    assert request.prompt_ids == (1, 2, 3)
    assert (request.sampling, request.stopping, request.n) == (SamplingParams(), StopParams(), 1)
    assert request.request_id != admit().request_id


def test_every_parameter_arrives_in_its_place() -> None:
    request = admit(
        temperature=0, top_k=5, top_p=1, min_p=0.1, repetition_penalty=1.1, presence_penalty=-1, frequency_penalty=2,
        logit_bias={"7": 3, 5: -100}, seed=-1, max_tokens=9, stop="x", stop_token_ids=[3], ignore_eos=True, n=2,
        logprobs=0,
    )  # fmt: skip
    assert request.sampling == SamplingParams(0, 5, 1, 0.1, 1.1, -1, 2, ((5, -100.0), (7, 3.0)), -1)
    assert request.stopping == StopParams(9, ("x",), (3,), True)
    assert (request.n, request.logprobs) == (2, 0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", 2.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("temperature", "1"),
        ("temperature", True),
        ("top_k", -1),
        ("top_k", 1.5),
        ("top_p", 0),
        ("top_p", 1.01),
        ("min_p", -0.1),
        ("repetition_penalty", 0),
        ("presence_penalty", 2.5),
        ("frequency_penalty", -3),
        ("seed", 2**64),
        ("seed", 1.0),
        ("max_tokens", 0),
        ("max_tokens", "5"),
        ("stop", 5),
        ("stop", [1]),
        ("stop", ""),
        ("stop", ["a", ""]),
        ("stop", ["a"] * 17),
        ("stop_token_ids", 5),
        ("stop_token_ids", "12"),
        ("stop_token_ids", [100]),
        ("stop_token_ids", [True]),
        ("ignore_eos", 1),
        ("logit_bias", [1]),
        ("logit_bias", {"100": 1}),
        ("logit_bias", {"x": 1}),
        ("logit_bias", {"5": 101}),
        ("logit_bias", {"5": None}),
        ("n", 0),
        ("n", 17),
        ("n", 2.0),
        ("logprobs", 21),
        ("logprobs", True),
    ],
)
def test_what_is_out_of_range_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(RequestError) as raised:
        admit(**{name: value})
    assert raised.value.param == name
    assert raised.value.mend
    assert name in raised.value.what


def test_unknown_names_are_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(RequestError, match=r"no parameter 'temprature'. Did you mean 'temperature'\?") as raised:
        admit(temprature=1)
    assert raised.value.param == "temprature"
    with pytest.raises(RequestError, match="Known are: "):
        admit(zzz=1)


def test_huge_values_are_shown_short() -> None:
    with pytest.raises(RequestError) as raised:
        admit(temperature="x" * 10_000)
    assert len(str(raised.value)) < 200


@pytest.mark.parametrize("prompt", [[], (), [100], [-1], [1.0], [True], ["a"], [None]])
def test_prompts_that_are_no_tokens_are_refused(prompt: object) -> None:
    with pytest.raises(RequestError) as raised:
        admit(prompt)
    assert raised.value.param == "prompt"


@pytest.mark.parametrize(("num_prompt", "max_tokens"), [(50, None), (51, None), (500, 1), (45, 6), (1, 50)])
def test_what_exceeds_the_context_is_refused_with_numbers(num_prompt: int, max_tokens: int | None) -> None:
    with pytest.raises(ContextLengthError) as raised:
        admit([1] * num_prompt, max_tokens=max_tokens)
    assert str(num_prompt) in raised.value.what
    assert "50" in raised.value.what
    assert raised.value.mend


@pytest.mark.parametrize(("num_prompt", "max_tokens"), [(49, None), (49, 1), (40, 10), (1, 49)])
def test_what_just_fits_is_taken(num_prompt: int, max_tokens: int | None) -> None:
    assert admit([1] * num_prompt, max_tokens=max_tokens).stopping.max_tokens == max_tokens


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(sorted(PARAMETER_NAMES)) | st.text(max_size=4), json_values, max_size=5))
@settings(max_examples=500, deadline=None)
def test_any_json_is_taken_or_refused_and_never_more(parameters: dict[str, object]) -> None:
    try:
        request = build_request((1, 2), parameters, LIMITS)
    except RequestError as error:
        assert error.param is not None
        json.dumps(str(error))
    else:
        assert 0 <= request.sampling.temperature <= 2
        assert 1 <= request.n <= LIMITS.max_choices


def test_the_service_level_is_checked_and_frozen_with_the_request() -> None:
    request = build_request((1, 2), {"tier": 3, "tenant": "a", "ttft_s": 1, "inter_token_s": 0.2}, LIMITS)
    assert request.service_level == ServiceLevel(tier=3, tenant="a", ttft_s=1.0, inter_token_s=0.2)
    assert build_request((1, 2), {}, LIMITS).service_level == ServiceLevel()


@pytest.mark.parametrize(
    ("name", "value"),
    [("tier", -1), ("tier", 10), ("tier", 1.5), ("tenant", "x" * 129), ("kind", 3), ("ttft_s", 0), ("ttft_s", "1")],
)
def test_a_service_level_out_of_range_is_refused(name: str, value: object) -> None:
    with pytest.raises(RequestError) as raised:
        build_request((1, 2), {name: value}, LIMITS)
    assert raised.value.param == name
