"""Puts the HTTP front together: routes, and the layers around them."""

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send

from vivace.server.background import beside_requests
from vivace.server.chat_completions import ChatCompletions
from vivace.server.completions import Completions
from vivace.server.config import ServerConfig
from vivace.server.connection import note_connection
from vivace.server.errors import error_response
from vivace.server.load_control import LoadControl
from vivace.server.load_meter import LoadMeter
from vivace.server.loading import LoadingModel
from vivace.server.metrics import MetricsEndpoint, StreamMetrics
from vivace.server.middleware import BodyLimit, ErrorAnswers, Gate, RequestRecord, routing_error
from vivace.server.pages import page_routes
from vivace.server.responses_api import ResponsesApi
from vivace.server.safety import Safety
from vivace.server.sessions import SessionEndpoints
from vivace.server.socket_session import SocketEndpoint
from vivace.server.status import StatusEndpoints
from vivace.server.stream_endpoints import StreamEndpoints
from vivace.server.streams import Streams, StreamSettings
from vivace.server.takes import Takes
from vivace.server.tokens import TokenEndpoints
from vivace.stream.open_store import open_store


class App(Starlette):
    """Remembers the connection of each request, which is seen from outside of all layers only."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        note_connection(scope, send)
        await super().__call__(scope, receive, send)


def build_app(config: ServerConfig, model: LoadingModel) -> Starlette:
    """The ASGI application over one model, which may still be loading."""
    safety, metrics = Safety(config.safety, model.ask), StreamMetrics()
    settings = StreamSettings(
        config.streams,
        store=open_store(config.store),
        lease_s=config.store.lease_s,
        network=config.transport.network,
        meter=metrics,
        log_share=config.log_share,
    )
    load = LoadControl(config.load, model, LoadMeter(metrics.registry, tuple(step.kind for step in config.load.steps)))
    streams = Streams(model, safety, settings, load.told)
    load.tell = streams.tell_all
    return App(
        routes=_routes(config, model, safety, metrics, streams=streams, load=load),
        middleware=_layers(config),
        exception_handlers={HTTPException: _answer_routing_error},
        lifespan=beside_requests([streams.serve, load.look_for_ever]),
    )


def _routes(
    config: ServerConfig,
    model: LoadingModel,
    safety: Safety,
    metrics: StreamMetrics,
    *,
    streams: Streams,
    load: LoadControl,
) -> list[BaseRoute]:
    status, tokens = StatusEndpoints(model), TokenEndpoints(model)
    chat = ChatCompletions(model, streams, safety, load)
    completions = Completions(model, streams, safety, load, max_prompts=config.sizes.max_prompts)
    takes = Takes(model, streams, safety)
    return [
        *page_routes(),
        Route("/health", status.health, methods=["GET"]),
        Route("/ready", status.ready, methods=["GET"]),
        Route("/metrics", MetricsEndpoint(metrics, model).scrape, methods=["GET"]),
        Route("/v1/models", status.models, methods=["GET"]),
        Route("/v1/models/{model:path}", status.model, methods=["GET"]),
        Route("/v1/chat/completions", chat.answer, methods=["POST"]),
        Route("/v1/completions", completions.answer, methods=["POST"]),
        *_response_routes(ResponsesApi(model, streams, safety, load)),
        *_stream_routes(StreamEndpoints(streams), takes),
        *_session_routes(SessionEndpoints(model)),
        WebSocketRoute("/v1/ws", SocketEndpoint(streams, chat).serve),
        Route("/v1/embeddings", status.embeddings, methods=["POST"]),
        Route("/tokenize", tokens.tokenize, methods=["POST"]),
        Route("/detokenize", tokens.detokenize, methods=["POST"]),
    ]


def _response_routes(responses: ResponsesApi) -> list[Route]:
    one = "/v1/responses/{response_id}"
    return [
        Route("/v1/responses", responses.create, methods=["POST"]),
        Route(one, responses.get, methods=["GET"]),
        Route(one, responses.delete, methods=["DELETE"]),
        Route(f"{one}/cancel", responses.cancel, methods=["POST"]),
    ]


def _stream_routes(streams: StreamEndpoints, takes: Takes) -> list[Route]:
    one = "/v1/streams/{stream_id}"
    return [
        Route(one, streams.resume, methods=["GET"]),
        Route(one, streams.cancel, methods=["DELETE"]),
        Route(f"{one}/cancel", streams.cancel, methods=["POST"]),
        Route(f"{one}/ack", streams.acknowledge, methods=["POST"]),
        Route(f"{one}/continue", takes.go_on, methods=["POST"]),
        Route(f"{one}/regenerate", takes.regenerate, methods=["POST"]),
        Route(f"{one}/edit", takes.edit, methods=["POST"]),
    ]


def _session_routes(sessions: SessionEndpoints) -> list[Route]:
    one = "/v1/sessions/{session_id}"
    return [
        Route("/v1/hints", sessions.hint, methods=["POST"]),
        Route("/v1/sessions", sessions.save, methods=["POST"]),
        Route(one, sessions.save_again, methods=["PUT"]),
        Route(one, sessions.restore, methods=["GET"]),
        Route(one, sessions.delete, methods=["DELETE"]),
        Route(f"{one}/hint", sessions.hint_session, methods=["POST"]),
    ]


def _layers(config: ServerConfig) -> list[Middleware]:
    """Outermost first. CORS lies outside the errors, so that a foreign page can read why it was refused."""
    cors = Middleware(
        CORSMiddleware,
        allow_origins=config.cors_origins,
        allow_methods=["GET", "POST", "PUT", "DELETE"],
        allow_headers=["*"],
        expose_headers=["x-request-id", "x-stream-id", "x-stream-offset"],
    )
    return [
        Middleware(RequestRecord),
        *([cors] if config.cors_origins else []),
        Middleware(ErrorAnswers),
        Middleware(Gate, api_key=config.api_key, origins=config.cors_origins),
        Middleware(BodyLimit, max_bytes=config.sizes.max_body_bytes),
    ]


def _answer_routing_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # the only kind this handler is registered for
    return error_response(routing_error(error, request.scope))
