"""One loaded model that answers: what the HTTP server, the commands and the Python API all use.

Owns tokenizer, chat template and engine loop, and closes them. Every method may be called from any thread.
"""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

from vivace.engine.protocols import TextTemplate, TextTokenizer
from vivace.types.answer import Answer, AnswerChunk
from vivace.types.model import ModelSpec
from vivace.types.request import ChatMessage, GenerationRequest


class ModelService:
    """A model behind an engine loop, from text to text.

    Args:
        name: the name clients ask for it by.
        spec: the model's numbers.
        tokenizer: text to token ids and back.
        template: conversation to token ids; None when the model has no chat template.
        loop: the engine thread.
    """

    @property
    def name(self) -> str:
        """The name clients ask for it by."""
        raise NotImplementedError

    @property
    def spec(self) -> ModelSpec:
        """The model's numbers."""
        raise NotImplementedError

    @property
    def context_length(self) -> int:
        """Most tokens of prompt and answer together, as served (at most the model's own)."""
        raise NotImplementedError

    @property
    def tokenizer(self) -> TextTokenizer:
        """Text to token ids and back."""
        raise NotImplementedError

    @property
    def ready(self) -> bool:
        """Whether requests are taken: the loop runs and is healthy."""
        raise NotImplementedError

    def encode(self, text: str, *, add_special: bool = True) -> tuple[int, ...]:
        """Token ids of a text; `add_special` adds the model's begin-of-sequence token where it wants one."""
        raise NotImplementedError

    def encode_chat(self, messages: Sequence[ChatMessage]) -> tuple[int, ...]:
        """Token ids of a conversation, through the chat template, ready for the assistant's turn."""
        raise NotImplementedError

    def admit(
        self, prompt_ids: Sequence[int], parameters: Mapping[str, object], request_id: str | None = None
    ) -> GenerationRequest:
        """Check raw parameters against this model and freeze them (see `engine.admission.build_request`)."""
        raise NotImplementedError

    def stream(self, request: GenerationRequest) -> AsyncIterator[AnswerChunk]:
        """The answer piece by piece; closing the iterator early cancels the request."""
        raise NotImplementedError

    def iterate(self, request: GenerationRequest) -> Iterator[AnswerChunk]:
        """The answer piece by piece, without an event loop; closing the iterator early cancels the request."""
        raise NotImplementedError

    def complete(self, request: GenerationRequest) -> Answer:
        """The whole answer."""
        raise NotImplementedError

    async def acomplete(self, request: GenerationRequest) -> Answer:
        """The whole answer, awaited; a cancelled task cancels the request."""
        raise NotImplementedError

    def complete_all(self, requests: Sequence[GenerationRequest]) -> list[Answer]:
        """Several whole answers, computed together."""
        raise NotImplementedError

    def cancel(self, request_id: str) -> None:
        """End a request early with finish reason "cancelled"; unknown and finished ones are ignored."""
        raise NotImplementedError

    def close(self) -> None:
        """End everything and free the model; may be called twice."""
        raise NotImplementedError
