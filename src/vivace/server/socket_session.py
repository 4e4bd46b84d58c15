"""One WebSocket connection: several answers at once, each read in a task of its own, and the verbs of the client.

Owns the tasks. When the connection ends they end, which for their streams is a reader that leaves.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing

import msgspec
from starlette.websockets import WebSocket, WebSocketDisconnect

from vivace.server.caller import SUBPROTOCOL, owner_in
from vivace.server.chat_completions import ChatCompletions
from vivace.server.connection import connection_of
from vivace.server.errors import error_body
from vivace.server.kinds import KINDS
from vivace.server.reader_link import ReaderLink
from vivace.server.socket_messages import (
    Pong,
    SocketMessage,
    StreamDone,
    StreamOpened,
    decode_message,
    error_message,
    event_message,
)
from vivace.server.stream_endpoints import reader_report, reader_speed
from vivace.server.streams import Streams
from vivace.stream.gather import gathered
from vivace.stream.readable import ReadableStream
from vivace.stream.reader import StreamReader
from vivace.types.errors import EngineError, RequestError, VivaceError

logger = logging.getLogger(__name__)

MAX_ANSWERS = 64
"""Answers that one connection may follow at a time."""


class SocketEndpoint:
    """/v1/ws over one server's streams."""

    def __init__(self, streams: Streams, chat: ChatCompletions) -> None:
        self._streams = streams
        self._chat = chat

    async def serve(self, socket: WebSocket) -> None:
        """Serve one connection until it closes."""
        offered = socket.scope.get("subprotocols", ())
        await socket.accept(SUBPROTOCOL if SUBPROTOCOL in offered else None)
        await SocketSession(socket, self._streams, self._chat).run()


class SocketSession:
    """The state of one connection."""

    def __init__(self, socket: WebSocket, streams: Streams, chat: ChatCompletions) -> None:
        self._socket = socket
        self._streams = streams
        self._chat = chat
        self._owner = owner_in(socket.headers)
        self._connection = connection_of(socket.scope)
        self._readers: dict[str, StreamReader] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._sending = asyncio.Lock()
        self._verbs: dict[str, Callable[[SocketMessage], Awaitable[None]]] = {
            "send": self._send,
            "resume": self._resume,
            "stop": self._stop,
            "ack": self._acknowledge,
            "pace": self._pace,
            "leave": self._leave,
            "ping": self._ping,
        }

    async def run(self) -> None:
        """Take messages until the client goes."""
        try:
            while True:
                received = await self._socket.receive()
                if received["type"] == "websocket.disconnect":
                    return
                await self._take(received.get("text") or received.get("bytes") or "")
        except WebSocketDisconnect:
            return
        finally:
            tasks = tuple(self._tasks.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _take(self, text: str | bytes) -> None:
        tag = ""
        try:
            message = decode_message(text)
            tag = message.id
            verb = self._verbs.get(message.type)
            if verb is None:
                raise RequestError(
                    f"There is no message of type {message.type[:32]!r}.", f"Use one of {', '.join(self._verbs)}."
                )
            await verb(message)
        except VivaceError as error:
            await self._tell(error_message(tag, error_body(error)))
        except WebSocketDisconnect:
            raise
        except Exception:
            logger.exception("a message of a client failed")
            mistake = EngineError("The server made a mistake of its own.", "Its log says more.")
            await self._tell(error_message(tag, error_body(mistake)))

    # Verbs ------------------------------------------------------------------------------------------------------------

    async def _send(self, message: SocketMessage) -> None:
        self._check_free(message.id)
        service, reply, options = await self._chat.prepare_streamed(bytes(message.body), self._owner)
        self._follow(message.id, self._streams.start(self._owner, service, reply, options), 0)

    async def _resume(self, message: SocketMessage) -> None:
        self._check_free(message.id)
        run = self._streams.find(message.stream_id, self._owner)
        run.log.after(message.starting_after)
        self._follow(message.id, run, message.starting_after)

    async def _stop(self, message: SocketMessage) -> None:
        self._run_of(message).cancel()

    async def _acknowledge(self, message: SocketMessage) -> None:
        reader = self._reader(message.id)
        reader.note(reader_report(message, reader.run.log.last_number))

    async def _pace(self, message: SocketMessage) -> None:
        self._reader(message.id).set_pace(message.pace or "reader", reader_speed(message.speed))

    async def _leave(self, message: SocketMessage) -> None:
        self._reader(message.id)
        self._tasks[message.id].cancel()

    async def _ping(self, message: SocketMessage) -> None:
        await self._tell(msgspec.json.encode(Pong(id=message.id)))

    # Answers ----------------------------------------------------------------------------------------------------------

    def _check_free(self, tag: str) -> None:
        if not tag or tag in self._tasks:
            raise RequestError("The message needs an id that no open answer has.", "Name each answer anew.", param="id")
        if len(self._tasks) >= MAX_ANSWERS:
            raise RequestError(f"{MAX_ANSWERS} answers are open on this connection.", "Wait for one to end.")

    def _run_of(self, message: SocketMessage) -> ReadableStream:
        if message.stream_id:
            return self._streams.find(message.stream_id, self._owner)
        return self._reader(message.id).run

    def _reader(self, tag: str) -> StreamReader:
        reader = self._readers.get(tag)
        if reader is None:
            raise RequestError(f"There is no open answer {tag[:64]!r}.", "It may have ended.", param="id")
        return reader

    def _follow(self, tag: str, run: ReadableStream, starting_after: int) -> None:
        task = asyncio.get_running_loop().create_task(self._read(tag, run, starting_after))
        self._tasks[tag] = task
        task.add_done_callback(lambda _: self._tasks.pop(tag, None))

    async def _read(self, tag: str, run: ReadableStream, starting_after: int) -> None:
        """Send the events of a stream; a client that goes meanwhile ends the whole session by itself."""
        try:
            with self._streams.reader(run, starting_after, None) as reader:
                self._readers[tag] = reader
                opened = StreamOpened(id=tag, stream_id=run.stream_id, starting_after=starting_after)
                await self._tell(msgspec.json.encode(opened))
                await self._send_events(tag, reader)
        except VivaceError as error:
            await self._tell(error_message(tag, error_body(error)))
        except WebSocketDisconnect:
            return
        except asyncio.CancelledError:
            if self._socket.client_state.name == "CONNECTED" and not run.log.has_ended:
                await self._tell(msgspec.json.encode(StreamDone(id=tag, status=run.log.status.value)))
            raise
        finally:
            self._readers.pop(tag, None)

    async def _send_events(self, tag: str, reader: StreamReader) -> None:
        run, wire = reader.run, KINDS[reader.run.record.kind].wire
        num_sent = 0
        link = ReaderLink(reader, self._connection, self._streams.network)
        async with aclosing(gathered(reader.events(), link.send_every_s)) as batches:
            async for events in batches:
                shown = [event for event in events if event is not None and (not event.name or run.options.events)]
                messages = [event_message(tag, each.number, wire.name(each), wire.data(each)) for each in shown]
                num_sent += len(messages)
                link.sending()
                with self._connection.corked(len(messages) > 1):
                    for message in messages:
                        await self._tell(message)
                link.sent(shown, sum(map(len, messages)))
                if told := link.take_notice():
                    await self._tell(msgspec.json.encode({"type": "network", "id": tag, **told}))
        if run.failure is not None and num_sent == 0:
            await self._tell(error_message(tag, error_body(run.failure)))
        await self._tell(msgspec.json.encode(StreamDone(id=tag, status=run.log.status.value)))

    async def _tell(self, message: bytes) -> None:
        """Send a message; waits while the client's socket is full, so memory stays bounded."""
        async with self._sending:
            await self._socket.send_text(message.decode())
