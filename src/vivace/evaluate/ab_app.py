"""Blind comparison over HTTP: two answers without names, in random order; votes; what they say so far.

Serves one page and four endpoints to people on this machine. Nothing that a browser gets before a vote tells which
model stands on which side.
"""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from vivace.evaluate.votes import Vote, VoteStore, ratings, standing
from vivace.types.answer import Answer
from vivace.types.errors import VivaceError
from vivace.types.request import ChatMessage, GenerationRequest

WEB_ROOT = Path(__file__).parent / "web"
SCORES = {"left": 1.0, "right": 0.0, "tie": 0.5}
MOST_OPEN = 256  # pairs that wait for a vote; the oldest is forgotten
_LONGEST_PROMPT = 8000
_TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css"}
_POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'"


class Answers(Protocol):
    """What is asked of a model (`engine.service.ModelService` is one)."""

    def admit_chat(self, messages: Sequence[ChatMessage], sampling: Mapping[str, object]) -> GenerationRequest:
        """A checked request."""
        ...

    async def acomplete(self, request: GenerationRequest) -> Answer:
        """The whole answer."""
        ...


@dataclass(frozen=True, slots=True)
class AbSettings:
    """What models are asked with, and the prompts that the page offers, in order."""

    sampling: Mapping[str, object]
    prompts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Pair:
    """A question that waits for its vote: names and answers of the left and of the right side."""

    prompt: str
    names: tuple[str, str]
    answers: tuple[str, str]


class BlindComparison:
    """The endpoints over two named models.

    Args:
        models: two answering models by name.
        store: where votes are kept.
        settings: how they are asked.
        flip: decides whether the first model stands on the right; for tests.
    """

    def __init__(
        self, models: Mapping[str, Answers], store: VoteStore, settings: AbSettings, flip: object = None
    ) -> None:
        self._models = dict(models)
        self._store = store
        self._settings = settings
        self._flip = flip if callable(flip) else lambda: secrets.randbelow(2) == 1
        self._open: dict[str, _Pair] = {}
        self._next = 0

    def app(self) -> Starlette:
        """The ASGI application."""
        pages = [_page(f"/{file.name}", file) for file in sorted(WEB_ROOT.iterdir()) if file.suffix in _TYPES]
        return Starlette(
            routes=[
                _page("/", WEB_ROOT / "ab.html"),
                *pages,
                Route("/api/pair", self.pair, methods=["POST"]),
                Route("/api/vote", self.vote, methods=["POST"]),
                Route("/api/results", self.results, methods=["GET"]),
            ]
        )

    async def pair(self, request: Request) -> Response:
        """Two answers to a prompt of the asker's, or to the next one offered."""
        body = await _body(request)
        prompt = body.get("prompt") or self._offered()
        if not isinstance(prompt, str) or not prompt.strip() or len(prompt) > _LONGEST_PROMPT:
            return _refused(f"The prompt must be a text of 1 to {_LONGEST_PROMPT} characters.")
        try:
            texts = await asyncio.gather(*(self._ask(model, prompt) for model in self._models.values()))
        except VivaceError as error:
            return _refused(str(error))
        sides = list(zip(self._models, texts, strict=True))
        if self._flip():
            sides.reverse()
        names, answers = zip(*sides, strict=True)
        number = secrets.token_urlsafe(12)
        self._open[number] = _Pair(prompt, names, answers)
        if len(self._open) > MOST_OPEN:
            del self._open[next(iter(self._open))]
        return JSONResponse({"id": number, "prompt": prompt, "left": answers[0], "right": answers[1]})

    async def vote(self, request: Request) -> Response:
        """Keep a decision; a pair is decided once. The answer tells who stood where."""
        body = await _body(request)
        choice = body.get("choice")
        if choice not in SCORES:
            return _refused(f"The choice must be one of {', '.join(SCORES)}.")
        pair = self._open.pop(str(body.get("id")), None)
        if pair is None:
            return _refused("This pair is not open: it has its vote, or is too old.", status=409)
        self._store.add(Vote(pair.prompt, *pair.names, *pair.answers, SCORES[str(choice)]))
        return JSONResponse({"left": pair.names[0], "right": pair.names[1]})

    async def results(self, request: Request) -> Response:
        """Standing of the two models, and ratings of all models in the file."""
        return JSONResponse(self.summary())

    def summary(self) -> dict[str, object]:
        """The same as a value."""
        votes = self._store.all()
        first, second = self._models
        return {
            "standing": asdict(standing(votes, first, second)),
            "ratings": [asdict(row) for row in ratings(votes)],
        }

    def _offered(self) -> str:
        prompt = self._settings.prompts[self._next % len(self._settings.prompts)]
        self._next += 1
        return prompt

    async def _ask(self, model: Answers, prompt: str) -> str:
        request = model.admit_chat([ChatMessage("user", prompt)], dict(self._settings.sampling))
        return (await model.acomplete(request)).choices[0].text


async def _body(request: Request) -> dict[str, object]:
    """The JSON object of a request; {} for anything else."""
    try:
        value = await request.json()
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _refused(message: str, status: int = 400) -> Response:
    return JSONResponse({"error": message}, status_code=status)


def _page(path: str, file: Path) -> Route:
    async def send(request: Request) -> Response:
        headers = {"content-security-policy": _POLICY, "cache-control": "no-cache"}
        return Response(file.read_bytes(), media_type=_TYPES[file.suffix], headers=headers)

    return Route(path, send, methods=["GET"])
