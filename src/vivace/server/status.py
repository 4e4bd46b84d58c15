"""The small endpoints: is it alive, does it answer, what does it serve, and what it does not do."""

import time

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from vivace.server.errors import HttpError
from vivace.server.json_response import json_response
from vivace.server.loading import LoadingModel, ModelState
from vivace.server.responses import ModelList, ModelObject
from vivace.types.errors import UnknownModelError


class Health(msgspec.Struct):
    """The body of GET /health and GET /ready: `status` of the process or of the model."""

    status: str
    model: str | None = None
    message: str | None = None


class StatusEndpoints:
    """Probes and lists over one model."""

    def __init__(self, model: LoadingModel) -> None:
        self._model = model
        self._created = int(time.time())

    async def health(self, request: Request) -> Response:
        """200 as long as the process can answer anything at all."""
        return json_response(Health("ok"))

    async def ready(self, request: Request) -> Response:
        """200 once the model answers; 503 while it loads, after it failed and while the server stops."""
        state = self._model.state
        if state is not ModelState.READY:
            failure = self._model.failure
            return _not_ready(state, None if failure is None else str(failure))
        service = self._model.service()
        if not service.ready:
            return _not_ready(ModelState.FAILED, "The engine broke; restart the server.")
        return json_response(Health(state.value, model=service.name))

    async def models(self, request: Request) -> Response:
        """The one model that is served, as a list."""
        return json_response(ModelList(data=[self._model_object()]))

    async def model(self, request: Request) -> Response:
        """One model by name."""
        asked, served = request.path_params["model"], self._model_object()
        if asked != served.id:
            raise UnknownModelError(
                f"The model {asked[:128]!r} is not served here.", f"Use {served.id!r}.", param="model"
            )
        return json_response(served)

    async def embeddings(self, request: Request) -> Response:
        """Off: chat models make poor embeddings, and a wrong vector is worse than none."""
        raise HttpError(
            501,
            "embeddings_off",
            "Embeddings are off on this server.",
            "Use a server with an embedding model for /v1/embeddings.",
        )

    def _model_object(self) -> ModelObject:
        service = self._model.service()
        return ModelObject(id=service.name, created=self._created, context_length=service.context_length)


def _not_ready(state: ModelState, message: str | None) -> Response:
    return json_response(Health(state.value, message=message), 503, {"retry-after": "1"})
