"""From raw parameters to a `GenerationRequest`: checked once, here, and frozen after.

Owns the ranges of every parameter. Never touches a model: the prompt arrives as token ids.
"""

import difflib
import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vivace.engine.rules import Number, Rule, flag, kv_policy, label, logit_bias, stop_strings, token_ids
from vivace.engine.structure import structure
from vivace.text.grammar import GrammarCompiler
from vivace.types.errors import ContextLengthError, RequestError
from vivace.types.request import MAX_TIER, GenerationRequest, SamplingParams, ServiceLevel, StopParams


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """What one model and its KV pool can take.

    Args:
        vocab_size: token ids are below it.
        context_length: most tokens of prompt and answer together.
        max_choices: largest `n`.
        grammars: reads what answers have to look like; None: answers have no structure.
    """

    vocab_size: int
    context_length: int
    max_choices: int = 16
    grammars: GrammarCompiler | None = None


SAMPLING_RULES: dict[str, Rule] = {
    "temperature": Number(0, 2),
    "top_k": Number(0, math.inf, integer=True),
    "top_p": Number(0, 1, low_open=True),
    "min_p": Number(0, 1),
    "repetition_penalty": Number(0, 10, low_open=True),
    "presence_penalty": Number(-2, 2),
    "frequency_penalty": Number(-2, 2),
    "seed": Number(-(2**63), 2**64 - 1, integer=True),
}
STOP_RULES: dict[str, Rule] = {
    "max_tokens": Number(1, math.inf, integer=True),
    "stop": stop_strings,
    "ignore_eos": flag,
}
REQUEST_RULES: dict[str, Rule] = {
    "logprobs": Number(0, 20, integer=True),
    "kv_policy": kv_policy,
}
SERVICE_RULES: dict[str, Rule] = {
    "tier": Number(0, MAX_TIER, integer=True),
    "tenant": label,
    "kind": label,
    "ttft_s": Number(0, 86400, low_open=True),
    "inter_token_s": Number(0, 86400, low_open=True),
    "queue_timeout_s": Number(0, 86400, low_open=True),
    "reading_tokens_per_s": Number(0, 10_000, low_open=True),
}
PARAMETER_NAMES = frozenset(
    (
        *(*SAMPLING_RULES, "logit_bias"),
        *(*STOP_RULES, "stop_token_ids"),
        *(*REQUEST_RULES, "n", "structured_outputs"),
        *SERVICE_RULES,
    )
)


def build_request(
    prompt_ids: Sequence[int],
    parameters: Mapping[str, object],
    limits: RequestLimits,
    request_id: str | None = None,
    *,
    more_stops: Sequence[str] = (),
    continues_text: bool = False,
) -> GenerationRequest:
    """Check a request and freeze it.

    Args:
        prompt_ids: the prompt as token ids.
        parameters: the fields of SamplingParams, StopParams and ServiceLevel, `n`, `logprobs`, `kv_policy` and
            `structured_outputs` (engine/structure.py), by name; None means the default.
            `logit_bias` is a mapping from token id to bias, `stop` a string or a list of them.
        limits: of the model that will answer.
        request_id: a name unique among running requests; one is made when it is None.
        more_stops: stop strings besides those of `parameters`.
        continues_text: see GenerationRequest.

    Returns:
        A request that is valid by construction.

    Raises:
        RequestError: an unknown name, a wrong type or a value out of range; `param` names it.
        ContextLengthError: prompt and answer do not fit into the context.
    """
    _refuse_unknown(parameters)
    prompt = _checked_prompt(prompt_ids, limits)
    bias, ids = logit_bias(limits.vocab_size), token_ids(limits.vocab_size)
    sampling = _checked(SAMPLING_RULES | {"logit_bias": bias}, parameters)
    stopping = _checked(STOP_RULES | {"stop_token_ids": ids}, parameters)
    choices = Number(1, limits.max_choices, integer=True)
    rest = _checked(REQUEST_RULES | {"n": choices, "structured_outputs": structure(limits.grammars)}, parameters)
    grammar = rest.pop("structured_outputs", None)
    if grammar is not None and stopping.get("ignore_eos"):
        raise RequestError(
            "An answer with a structure ends where the structure does.", "Leave ignore_eos out.", param="ignore_eos"
        )
    stopping["stop"] = (*stopping.get("stop", ()), *more_stops)
    check_fits(len(prompt), stopping.get("max_tokens"), limits.context_length)
    return GenerationRequest(
        request_id=uuid.uuid4().hex if request_id is None else request_id,
        prompt_ids=prompt,
        sampling=SamplingParams(**sampling),
        stopping=StopParams(**stopping),
        continues_text=continues_text,
        grammar=grammar,
        service_level=ServiceLevel(**_checked(SERVICE_RULES, parameters)),
        **rest,
    )


def check_fits(num_prompt: int, max_tokens: int | None, context_length: int) -> None:
    """Refuse a prompt that leaves no room for its answer.

    Raises:
        ContextLengthError: prompt + max_tokens (or + 1 without one) exceeds the context.
    """
    if num_prompt + 1 > context_length:
        raise ContextLengthError(
            f"The prompt has {num_prompt} tokens and the context holds {context_length}, the answer included.",
            f"Shorten the prompt by at least {num_prompt + 1 - context_length} tokens.",
            param="prompt",
        )
    if max_tokens is not None and num_prompt + max_tokens > context_length:
        raise ContextLengthError(
            f"The prompt has {num_prompt} tokens and max_tokens is {max_tokens}: together more than the context of "
            f"{context_length} tokens.",
            f"Shorten the prompt, or set max_tokens to at most {context_length - num_prompt}.",
            param="max_tokens",
        )


def _refuse_unknown(parameters: Mapping[str, object]) -> None:
    for name in parameters:
        if name not in PARAMETER_NAMES:
            near = difflib.get_close_matches(str(name), PARAMETER_NAMES, n=1)
            mend = f"Did you mean {near[0]!r}?" if near else f"Known are: {', '.join(sorted(PARAMETER_NAMES))}."
            raise RequestError(f"There is no parameter {name!r}.", mend, param=str(name))


def _checked_prompt(prompt_ids: Sequence[int], limits: RequestLimits) -> tuple[int, ...]:
    if not len(prompt_ids):
        raise RequestError("The prompt has no tokens.", "Give at least one token of text.", param="prompt")
    if len(prompt_ids) >= limits.context_length:
        check_fits(len(prompt_ids), None, limits.context_length)
    checked: Any = token_ids(limits.vocab_size)("prompt", prompt_ids)
    return tuple(checked)


def _checked(rules: Mapping[str, Rule], parameters: Mapping[str, object]) -> dict[str, Any]:
    given = {name: parameters[name] for name in rules if parameters.get(name) is not None}
    return {name: rules[name](name, value) for name, value in given.items()}
