"""One loaded model that answers: what the HTTP server, the commands and the Python API all use.

Owns tokenizer, chat template and engine loop, and closes them. Every method may be called from any thread.
"""

import weakref
from collections.abc import AsyncGenerator, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cached_property, partial
from queue import SimpleQueue
from typing import TYPE_CHECKING

from vivace.cache.policies import num_tokens_gone, parse_policy
from vivace.engine.admission import STOP_RULES, RequestLimits, build_request
from vivace.engine.answers import AnswerBuilder, assemble
from vivace.engine.conversations import Conversations, SessionRoom
from vivace.engine.long_chat import LongChat, chat_policy, check_long_chat, prompt_room, truncate
from vivace.engine.loop import EngineLoop
from vivace.engine.stats import EngineStats
from vivace.telemetry.clock import now_ns
from vivace.telemetry.timeline import StageTimeline
from vivace.text.grammar import GrammarCompiler
from vivace.text.template import ChatTemplate
from vivace.text.tokenizer import Tokenizer
from vivace.types.answer import Answer, AnswerChunk
from vivace.types.errors import OverloadedError
from vivace.types.events import EngineEvent
from vivace.types.grammar import GrammarSource
from vivace.types.model import ModelSpec
from vivace.types.place import RequestPlace
from vivace.types.request import ChatMessage, GenerationRequest

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from vivace.engine.mailbox import Mailbox


class ModelService:
    """A model behind an engine loop, from text to text.

    A service that is dropped without `close` is closed when it is collected, or when the interpreter ends.

    Args:
        name: the name clients ask for it by.
        spec: the model's numbers.
        tokenizer: text to token ids and back.
        template: conversation to token ids.
        loop: the engine thread.
        context_length: most tokens of prompt and answer together; None: the model's own.
        long_chat: what happens to conversations that have outgrown it; None: they are refused.
        sessions: where conversations are saved; None: they cannot be.
    """

    def __init__(
        self,
        name: str,
        spec: ModelSpec,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        loop: EngineLoop,
        *,
        context_length: int | None = None,
        long_chat: LongChat | None = None,
        sessions: SessionRoom | None = None,
    ) -> None:
        self.name = name
        self.spec = spec
        self.tokenizer = tokenizer
        self.context_length = context_length or spec.context_length
        self._template = template
        self._long_chat = long_chat or LongChat("reject", self.context_length)
        self._loop = loop
        self._limits = RequestLimits(
            min(spec.vocab_size, tokenizer.vocab_size),
            self.context_length,
            grammars=GrammarCompiler(tokenizer, spec.vocab_size),
        )
        self._sessions = sessions
        self._has_background = True
        self._mailboxes: weakref.WeakKeyDictionary[AbstractEventLoop, Mailbox] = weakref.WeakKeyDictionary()
        self._closer = weakref.finalize(self, loop.close)

    @cached_property
    def conversations(self) -> Conversations:
        """Saves and restores conversations, and fetches those that are expected."""
        return Conversations(self._loop, self.admit_chat, self._sessions)

    @property
    def ready(self) -> bool:
        """Whether requests are taken: the loop runs and is healthy."""
        return self._loop.healthy

    def stats(self) -> EngineStats:
        """The engine's numbers of this moment."""
        return self._loop.stats()

    def encode(self, text: str, *, add_special: bool = True) -> tuple[int, ...]:
        """Token ids of a text; `add_special` adds the model's begin-of-sequence token where it wants one.

        Raises:
            TokenizerError: the text holds a lone surrogate.
        """
        return tuple(self.tokenizer.encode(text, add_special=add_special))

    def encode_chat(self, messages: Sequence[ChatMessage]) -> tuple[int, ...]:
        """Token ids of a conversation, through the chat template, ready for the assistant's turn.

        Raises:
            RequestError: no messages, or the template refuses them.
        """
        return tuple(self._template.encode_chat(messages))

    def admit(
        self,
        prompt_ids: Sequence[int],
        parameters: Mapping[str, object],
        request_id: str | None = None,
        *,
        chat: bool = False,
    ) -> GenerationRequest:
        """Check raw parameters against this model and freeze them.

        Args:
            prompt_ids: from `encode` or `encode_chat`.
            parameters: see `engine.admission.build_request`.
            request_id: unique among running requests; made when None.
            chat: the prompt is a conversation: the answer also ends at the template's own stop strings, and is a text
                of its own. Otherwise it continues the prompt's text, blanks included.

        Raises:
            RequestError: an unknown name, a wrong type or a value out of range.
            ContextLengthError: prompt and answer do not fit into the context.
        """
        more_stops = self._template.stop_strings if chat else ()
        return build_request(
            prompt_ids, parameters, self._limits, request_id, more_stops=more_stops, continues_text=not chat
        )

    def admit_chat(
        self, messages: Sequence[ChatMessage], parameters: Mapping[str, object], request_id: str | None = None
    ) -> GenerationRequest:
        """A conversation as a request, shortened to the context where `long_chat` asks for it.

        Args:
            messages: the turns, oldest first.
            parameters: as for `admit`, and `long_chat`: a row of engine/long_chat.py; None: the service's own.
            request_id: unique among running requests; made when None.

        Raises:
            RequestError: a malformed conversation, an unknown name, a wrong type or a value out of range.
            ContextLengthError: prompt and answer do not fit into the context.
        """
        given = dict(parameters)
        asked = given.pop("long_chat", None)
        kind = self._long_chat.kind if asked is None else check_long_chat(asked)
        max_tokens = given.get("max_tokens")
        if max_tokens is not None:
            STOP_RULES["max_tokens"]("max_tokens", max_tokens)
        if kind == "reject":
            return self.admit(self.encode_chat(messages), given, request_id, chat=True)
        room = prompt_room(self.context_length, max_tokens if isinstance(max_tokens, int) else None)
        policy = chat_policy(kind, self.context_length)
        if policy is not None and len(self.encode_chat(messages)) > room:
            return self._admit_long(messages, given, request_id, policy)
        fitted = truncate(messages, room, self.encode_chat, self._count)
        request = self.admit(fitted.prompt_ids, given, request_id, chat=True)
        return replace(request, dropped_tokens=fitted.dropped_tokens)

    def _admit_long(
        self, messages: Sequence[ChatMessage], given: dict[str, object], request_id: str | None, policy: str
    ) -> GenerationRequest:
        """A conversation that goes on in bounded memory, as far as the model was trained for."""
        max_tokens, reach = given.get("max_tokens"), self._long_chat.reach
        room = prompt_room(reach, max_tokens if isinstance(max_tokens, int) else None)
        fitted = truncate(messages, room, self.encode_chat, self._count)
        bounded = {**given, "kv_policy": given.get("kv_policy") or policy}
        limits = replace(self._limits, context_length=reach)
        request = build_request(fitted.prompt_ids, bounded, limits, request_id, more_stops=self._template.stop_strings)
        gone = num_tokens_gone(parse_policy(request.kv_policy or policy), len(fitted.prompt_ids))
        return replace(request, dropped_tokens=fitted.dropped_tokens + gone, context_length=reach)

    def _count(self, text: str) -> int:
        return len(self.tokenizer.encode(text, add_special=False))

    async def stream(
        self, request: GenerationRequest, timeline: StageTimeline | None = None
    ) -> AsyncGenerator[AnswerChunk, None]:
        """The answer piece by piece; the request starts with the first piece, closing the iterator early cancels it.

        Args:
            request: from `admit`; the tokens that a continuation begins with come first.
            timeline: in its stage "queued"; the engine moves it on.

        Raises:
            VivaceError: the request failed.
        """
        import asyncio  # a command that never awaits need not pay for it

        arrived: asyncio.Queue[Sequence[EngineEvent]] = asyncio.Queue()
        sink = partial(self._mailbox_of(asyncio.get_running_loop()).post, arrived)
        builder = AnswerBuilder(request, self.tokenizer)
        for chunk in builder.replay():
            yield chunk
        if builder.done:
            return
        self._loop.submit(self._readable(request), sink, timeline)
        try:
            while not builder.done:
                for chunk in self._chunks(request, builder, await arrived.get()):
                    yield chunk
        finally:
            if not builder.done:
                self._loop.cancel(request.request_id)

    def _mailbox_of(self, event_loop: "AbstractEventLoop") -> "Mailbox":
        """The one mailbox of an event loop; nearly always there is one loop."""
        from vivace.engine.mailbox import Mailbox

        if event_loop not in self._mailboxes:
            self._mailboxes[event_loop] = Mailbox(event_loop)
        return self._mailboxes[event_loop]

    def _readable(self, request: GenerationRequest) -> GenerationRequest:
        """The request with a grammar that was kept as a text read again."""
        if not isinstance(request.grammar, GrammarSource) or self._limits.grammars is None:
            return request
        kind, text = request.grammar.kind, request.grammar.text
        return replace(request, grammar=self._limits.grammars.compile(kind, text, "structured_outputs"))

    def iterate(self, request: GenerationRequest) -> Generator[AnswerChunk, None, None]:
        """The answer piece by piece, without an event loop; closing the iterator early cancels the request.

        Raises:
            VivaceError: the request failed.
        """
        with closing(self._iterate_all([request], [new_timeline()])) as pairs:
            for _, chunk in pairs:
                yield chunk

    def retell(self, request: GenerationRequest) -> Iterator[tuple[str, bool]]:
        """What each token that a continuation begins with adds to the text, and whether nothing is held back after it.

        Nothing is computed; a stop string ends the text as it does in an answer.
        """
        builder = AnswerBuilder(request, self.tokenizer)
        for chunk in builder.replay():
            if chunk.token_ids:
                yield chunk.text, builder.is_settled

    def complete(self, request: GenerationRequest) -> Answer:
        """The whole answer.

        Raises:
            VivaceError: the request failed.
        """
        return self.complete_all([request])[0]

    def complete_all(self, requests: Sequence[GenerationRequest]) -> list[Answer]:
        """Several whole answers, computed together, in the order of the requests.

        Raises:
            VivaceError: what the first failing request raised; the others are cancelled then.
        """
        timelines = [new_timeline() for _ in requests]
        chunks: list[list[AnswerChunk]] = [[] for _ in requests]
        for index, chunk in self._iterate_all(requests, timelines):
            chunks[index].append(chunk)
        rows = zip(requests, chunks, timelines, strict=True)
        return [assemble(mine, request.n, timeline) for request, mine, timeline in rows]

    async def acomplete(self, request: GenerationRequest) -> Answer:
        """The whole answer, awaited; a cancelled task cancels the request.

        Raises:
            VivaceError: the request failed.
        """
        timeline = new_timeline()
        chunks = [chunk async for chunk in self.stream(request, timeline)]
        return assemble(chunks, request.n, timeline)

    async def place(self, request_id: str) -> RequestPlace | None:
        """Where a request is before its first token; None when it is not in work."""
        import asyncio  # as in `stream`

        try:
            return await asyncio.wrap_future(self._loop.ask(lambda engine: engine.place_of(request_id)))
        except OverloadedError:  # closed
            return None

    def cancel(self, request_id: str) -> None:
        """End a request early with finish reason "cancelled"; unknown and finished ones are ignored."""
        self._loop.cancel(request_id)

    @property
    def has_background(self) -> bool:
        """Whether work ahead of need is done: blocks fetched on a hint, or in moments without work."""
        return self._has_background

    def set_background(self, is_on: bool) -> None:
        """Do work ahead of need, or leave it for now."""
        self._has_background = is_on
        self._loop.set_background(is_on)

    def set_speculation(self, is_on: bool) -> None:
        """Guess ahead, where the engine can, or leave it for now; no text changes."""
        self._loop.set_speculation(is_on)

    @property
    def knows_readers(self) -> bool:
        """Whether the order of service looks at readers, so that `note_reader` is of use."""
        return self._loop.knows_readers

    def note_reader(self, request_id: str, lead_s: float, *, is_all: bool = False) -> None:
        """Tell how much waits for the reader of a request.

        Args:
            request_id: of the request; unknown and finished ones are ignored.
            lead_s: reading time of the text that its reader has not taken yet.
            is_all: the reader's own word: nothing else waits to be read.
        """
        self._loop.note_reader(request_id, lead_s, is_all=is_all)

    def close(self) -> None:
        """End everything and free the model; may be called twice."""
        self._closer()

    def _iterate_all(
        self, requests: Sequence[GenerationRequest], timelines: Sequence[StageTimeline]
    ) -> Generator[tuple[int, AnswerChunk], None, None]:
        """Chunks of all requests as they come, each with the position of its request."""
        arrived: SimpleQueue[tuple[int, Sequence[EngineEvent]]] = SimpleQueue()
        builders = {index: AnswerBuilder(request, self.tokenizer) for index, request in enumerate(requests)}
        try:
            for index, (request, timeline) in enumerate(zip(requests, timelines, strict=True)):
                for chunk in builders[index].replay():
                    yield index, chunk
                if builders[index].done:
                    del builders[index]
                    continue
                self._loop.submit(self._readable(request), partial(_put_numbered, arrived, index), timeline)
            while builders:
                index, events = arrived.get()
                for chunk in self._chunks(requests[index], builders[index], events):
                    yield index, chunk
                if builders[index].done:
                    del builders[index]
        finally:
            for index in builders:
                self._loop.cancel(requests[index].request_id)

    def _chunks(
        self, request: GenerationRequest, builder: AnswerBuilder, events: Sequence[EngineEvent]
    ) -> Iterator[AnswerChunk]:
        """The chunks that events make; a stop string is told to the engine before its chunk is handed out."""
        for chunk in builder.feed(events):
            for choice in builder.take_cancels():
                self._loop.cancel(request.request_id, choice)
            yield chunk


def new_timeline() -> StageTimeline:
    """The timeline of a request that is handed in now."""
    return StageTimeline("queued", now_ns())


def _put_numbered(
    arrived: SimpleQueue[tuple[int, Sequence[EngineEvent]]], index: int, events: Sequence[EngineEvent]
) -> None:
    arrived.put((index, events))
