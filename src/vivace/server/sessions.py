"""/v1/sessions and /v1/hints: conversations saved with their keys and values, and those that are about to go on."""

import asyncio

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from vivace.engine.conversations import Conversations, SavedConversation
from vivace.server.caller import owner_in
from vivace.server.convert import chat_messages, check_model
from vivace.server.decode import read_body
from vivace.server.json_response import json_response
from vivace.server.loading import LoadingModel
from vivace.server.requests import ConversationRequest
from vivace.types.request import ChatMessage


class SessionMessage(msgspec.Struct):
    """One message of a saved conversation."""

    role: str
    content: str


class SessionObject(msgspec.Struct, omit_defaults=True):
    """The body of an answer about a session.

    `num_tokens` of the prompt that its messages make; `num_saved_tokens` of these need not be computed again after a
    restart; `num_ready_tokens` of these are in the engine's pool. `messages` are told by a restore alone.
    """

    id: str
    num_tokens: int
    num_saved_tokens: int
    num_ready_tokens: int | None = None
    messages: list[SessionMessage] | None = None
    object: str = "session"


class DeletedSession(msgspec.Struct):
    """The body of an answer to DELETE."""

    id: str
    deleted: bool = True


class HintTaken(msgspec.Struct):
    """The body of an answer to a hint: it is being followed, or, under high load, not."""

    object: str = "hint"
    taken: bool = True


class SessionEndpoints:
    """The endpoints of saved conversations over one model. A caller finds its own alone, and no list of them."""

    def __init__(self, model: LoadingModel) -> None:
        self._model = model

    async def save(self, request: Request) -> Response:
        """Keep a conversation under a new id.

        Raises:
            VivaceError: the body is wrong, sessions are off, or there is no room.
        """
        return json_response(_told(await self._saved(request, None)), 201)

    async def save_again(self, request: Request) -> Response:
        """Keep what a saved conversation has become.

        Raises:
            VivaceError: as `save`, or there is no such session of this caller.
        """
        return json_response(_told(await self._saved(request, request.path_params["session_id"])))

    async def restore(self, request: Request) -> Response:
        """Have a conversation back, its keys and values in the pool.

        Raises:
            VivaceError: sessions are off, or there is no such session of this caller.
        """
        owner, session_id = owner_in(request.headers), request.path_params["session_id"]
        saved = await asyncio.to_thread(self._conversations().restore, owner, session_id)
        messages = [SessionMessage(message.role, message.content) for message in saved.messages]
        body = msgspec.structs.replace(_told(saved), num_ready_tokens=saved.num_ready_tokens, messages=messages)
        return json_response(body)

    async def delete(self, request: Request) -> Response:
        """Forget a conversation and its files.

        Raises:
            VivaceError: sessions are off, or there is no such session of this caller.
        """
        owner, session_id = owner_in(request.headers), request.path_params["session_id"]
        await asyncio.to_thread(self._conversations().delete, owner, session_id)
        return json_response(DeletedSession(session_id))

    async def hint_session(self, request: Request) -> Response:
        """The owner of a saved conversation is about to go on with it; answered before its blocks have come.

        Raises:
            VivaceError: sessions are off, or there is no such session of this caller.
        """
        owner, session_id = owner_in(request.headers), request.path_params["session_id"]
        if not self._model.service().has_background:
            return json_response(HintTaken(taken=False), 202)
        await asyncio.to_thread(self._conversations().expect_session, owner, session_id)
        return json_response(HintTaken(), 202)

    async def hint(self, request: Request) -> Response:
        """Somebody is typing in this conversation; answered before its blocks have come.

        Raises:
            VivaceError: the body is wrong.
        """
        messages, parameters = await self._conversation(request)
        if not self._model.service().has_background:
            return json_response(HintTaken(taken=False), 202)
        await asyncio.to_thread(self._conversations().expect, messages, parameters)
        return json_response(HintTaken(), 202)

    async def _saved(self, request: Request, session_id: str | None) -> SavedConversation:
        messages, parameters = await self._conversation(request)
        save = self._conversations().save
        return await asyncio.to_thread(save, owner_in(request.headers), messages, parameters, session_id)

    async def _conversation(self, request: Request) -> tuple[list[ChatMessage], dict[str, object]]:
        wire = await read_body(request, ConversationRequest)
        check_model(wire.model, self._model.service().name)
        given = {} if wire.vivace is None else msgspec.structs.asdict(wire.vivace)
        parameters = {name: value for name, value in given.items() if value is not None}
        return chat_messages(wire.messages), parameters

    def _conversations(self) -> Conversations:
        return self._model.service().conversations


def _told(saved: SavedConversation) -> SessionObject:
    return SessionObject(saved.session_id, saved.num_tokens, saved.num_saved_tokens)
