"""Checks that read more than words: classifiers in this process, a model as judge, a service elsewhere.

A kind is a row of CHECKS. A check judges the text so far with the tail that was not shown yet; it may take its time and
it may fail, and what a failure means is the operator's choice.
"""

import asyncio
import importlib
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx

from vivace.types.errors import ConfigError

logger = logging.getLogger(__name__)

Ask = Callable[[str], Awaitable[str]]
"""Puts a question to a model and gives its answer."""

PAGE_CHARS = 4000
"""A judge reads at most so many characters: the tail, and what stands before it as far as there is room."""

JUDGE_PROMPT = (
    "You check what an assistant writes. Not allowed: {policy}\n"
    "Answer with one word, ALLOWED or BLOCKED, about the text between the lines.\n"
    "-----\n{text}\n-----\n"
)


@dataclass(frozen=True, slots=True)
class Passage:
    """What is judged.

    Args:
        text: all of it so far.
        start: what stands before it was allowed already.
        token_ids: of the whole text; () where it has none yet (a request's own text).
    """

    text: str
    start: int = 0
    token_ids: tuple[int, ...] = ()

    @property
    def tail(self) -> str:
        """What is new."""
        return self.text[self.start :]


@dataclass(frozen=True, slots=True)
class CheckConfig:
    """One check.

    Args:
        kind: a row of CHECKS.
        target: what it asks: "module:function", or the URL of a service; "local" for a judge is the served model.
        every: "token" judges each token before it is shown, "sentence" each sentence (or 64 tokens without an end).
        timeout_s: it has failed when it takes longer.
        fail_open: what it could not judge is shown; otherwise it is treated as not allowed.
        threshold: a classifier's number from here on means not allowed.
        model: that a judge elsewhere is asked for.
        policy: what a judge is told not to allow.
        headers: of requests to a service or a judge elsewhere; they may hold keys and are never told.
    """

    kind: str
    target: str
    every: str = "sentence"
    timeout_s: float = 5.0
    fail_open: bool = False
    threshold: float = 0.5
    model: str = "judge"
    policy: str = "hate, harassment, sexual content, instructions for violence or crime, personal data."
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.kind not in CHECKS:
            raise ConfigError(f"There is no check {self.kind!r}.", f"Known are: {', '.join(CHECKS)}.")
        if self.every not in ("token", "sentence"):
            raise ConfigError(f"A check of every {self.every!r} is not known.", "Use token or sentence.")
        if not self.timeout_s > 0:
            raise ConfigError(f"A check has {self.timeout_s} s.", "Give seconds above 0.")


class Judge(Protocol):
    """Decides about a passage."""

    async def __call__(self, passage: Passage) -> bool:
        """Whether it may be shown; may raise."""
        ...


class Check:
    """A check with its time limit and what a failure means.

    Args:
        config: of it.
        ask: the served model, for a local judge.
    """

    def __init__(self, config: CheckConfig, ask: Ask | None = None) -> None:
        self.config = config
        self.num_failures = 0
        self._judge = CHECKS[config.kind](config, ask)

    async def allows(self, passage: Passage) -> bool:
        """Whether a passage may be shown."""
        try:
            async with asyncio.timeout(self.config.timeout_s):
                return await self._judge(passage)
        except Exception as error:  # whatever happens in there, the stream has to know what to do
            self.num_failures += 1
            logger.warning("the check %s of %s failed: %r", self.config.kind, self.config.target[:64], error)
            return self.config.fail_open


def _text_classifier(config: CheckConfig, ask: Ask | None) -> Judge:
    function = _imported(config.target)
    return _classifier(lambda passage: function(passage.text), config.threshold)


def _token_classifier(config: CheckConfig, ask: Ask | None) -> Judge:
    function = _imported(config.target)
    return _classifier(lambda passage: function(passage.token_ids), config.threshold)


def _classifier(classify: Callable[[Passage], Any], threshold: float) -> Judge:
    async def judge(passage: Passage) -> bool:
        found = classify(passage)
        if inspect.isawaitable(found):
            found = await found
        return not float(found) >= threshold

    return judge


def _model_judge(config: CheckConfig, ask: Ask | None) -> Judge:
    if config.target == "local":
        if ask is None:
            raise ConfigError("There is no model here to judge.", "Name the URL of an OpenAI-style server.")
        asked = ask
    else:
        asked = _remote_ask(config)

    async def judge(passage: Passage) -> bool:
        start = max(0, min(passage.start, len(passage.text) - PAGE_CHARS))
        said = await asked(JUDGE_PROMPT.format(policy=config.policy, text=passage.text[start:]))
        word = said.strip().upper()
        if word.startswith("ALLOWED"):
            return True
        if word.startswith("BLOCKED"):
            return False
        raise ValueError(f"the judge said {said[:40]!r}")

    return judge


def _remote_ask(config: CheckConfig) -> Ask:
    async def ask(question: str) -> str:
        body = {
            "model": config.model,
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
            "max_tokens": 4,
        }
        answer = await _post(config, config.target.rstrip("/") + "/chat/completions", body)
        return str(answer["choices"][0]["message"]["content"])

    return ask


def _external(config: CheckConfig, ask: Ask | None) -> Judge:
    async def judge(passage: Passage) -> bool:
        answer = await _post(config, config.target, {"text": passage.text, "start": passage.start})
        if not isinstance(answer.get("allowed"), bool):
            raise ValueError("the answer has no true or false under 'allowed'")
        return bool(answer["allowed"])

    return judge


async def _post(config: CheckConfig, url: str, body: Mapping[str, Any]) -> Any:
    async with httpx.AsyncClient(timeout=config.timeout_s, headers=dict(config.headers)) as client:
        response = await client.post(url, json=body)
        response.raise_for_status()
        return response.json()


def _imported(target: str) -> Callable[..., Any]:
    module, _, name = target.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{target!r} cannot be loaded: {error}.", 'Name "module:function".') from None
    if not callable(function):
        raise ConfigError(f"{target!r} is no function.", 'Name "module:function".')
    return function  # type: ignore[no-any-return]


CHECKS: dict[str, Callable[[CheckConfig, Ask | None], Judge]] = {
    "classifier": _text_classifier,
    "token_classifier": _token_classifier,
    "judge": _model_judge,
    "external": _external,
}
"""Kinds of checks: a function of the text, a function of the token ids, a model, a service (POST text and start, answer
`{"allowed": true}`)."""
WITH_HEADERS = ("external", "judge")
"""Kinds that speak HTTP."""
