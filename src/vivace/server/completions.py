"""POST /v1/completions: text or token ids in, the continuation out, whole or streamed, for several prompts at once."""

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from vivace.engine.service import ModelService
from vivace.server.completion_reply import CompletionReply
from vivace.server.convert import check_model, parameters, wants_usage
from vivace.server.decode import read_body
from vivace.server.disconnect import while_connected
from vivace.server.event_stream import EventStream
from vivace.server.json_response import json_response
from vivace.server.load_control import LoadControl
from vivace.server.loading import LoadingModel
from vivace.server.requests import CompletionRequest
from vivace.server.safety import Safety
from vivace.server.streams import Streams
from vivace.types.errors import RequestError
from vivace.types.request import GenerationRequest

DEFAULT_MAX_TOKENS = 16
"""As in the OpenAI API: a raw continuation need not end on its own."""


class Completions:
    """The completions endpoint over one model."""

    def __init__(
        self, model: LoadingModel, streams: Streams, safety: Safety, load: LoadControl, *, max_prompts: int
    ) -> None:
        self._load = load
        self._model = model
        self._streams = streams
        self._safety = safety
        self._max_prompts = max_prompts

    async def answer(self, request: Request) -> Response | EventStream:
        """Answer one HTTP request.

        Raises:
            VivaceError: the body is wrong, the model cannot take it, or the engine failed.
        """
        wire = await read_body(request, CompletionRequest)
        check_model(wire.model, self._model.service().name)
        include_usage = wants_usage(wire)
        options = self._streams.options(wire.stream_options)
        prompts = _prompts(wire.prompt, self._max_prompts)
        if wire.echo and wire.logprobs is not None:
            raise RequestError(
                "echo with logprobs is not supported: prompt tokens have none here.", "Leave one out.", param="echo"
            )
        await self._safety.check([prompt for prompt in prompts if isinstance(prompt, str)], wire.logprobs)
        has_ids = any(not isinstance(prompt, str) for prompt in prompts)
        service, (admitted, echoes) = await self._load.admit(
            lambda service: _admit(service, wire, prompts), wire, has_ids=has_ids
        )
        requests = [self._load.eased(request, service) for request in admitted]
        reply = CompletionReply(service.name, requests, echoes, include_usage)
        if wire.stream:
            return self._streams.open(request, service, reply, options)
        answers = await while_connected(request.receive, self._safety.complete_all(service, requests))
        return json_response(reply.whole(answers))


def _prompts(prompt: str | list[str | int | list[int]], max_prompts: int) -> list[str | list[int]]:
    """The prompts of a request: text, token ids, or a list of either.

    Raises:
        RequestError: an empty list, a mixed one, or too many prompts.
    """
    if isinstance(prompt, str):
        return [prompt]
    if not prompt:
        raise RequestError("The prompt is an empty list.", "Send text, or a list that is not empty.", param="prompt")
    ids = [entry for entry in prompt if isinstance(entry, int)]
    if len(ids) == len(prompt):
        return [ids]
    if ids:
        raise RequestError("The prompt mixes token ids and text.", "Send one or the other.", param="prompt")
    if len(prompt) > max_prompts:
        raise RequestError(
            f"The request has {len(prompt)} prompts; at most {max_prompts} are taken.", "Split it.", param="prompt"
        )
    return [entry for entry in prompt if not isinstance(entry, int)]


def _admit(
    service: ModelService, wire: CompletionRequest, prompts: Sequence[str | list[int]]
) -> tuple[list[GenerationRequest], list[str]]:
    """Check the request and turn its prompts into tokens; the second list is what each answer echoes."""
    given = parameters(wire) | {"logprobs": wire.logprobs}
    given.setdefault("max_tokens", DEFAULT_MAX_TOKENS)
    requests, echoes = [], []
    for prompt in prompts:
        ids = service.encode(prompt) if isinstance(prompt, str) else prompt
        requests.append(service.admit(ids, given))
        echoed = prompt if isinstance(prompt, str) else service.tokenizer.decode(ids)
        echoes.append(echoed if wire.echo else "")
    return requests, echoes
