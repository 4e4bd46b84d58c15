"""POST /tokenize and POST /detokenize: what the model sees of a text, and back."""

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from vivace.engine.service import ModelService
from vivace.server.convert import chat_messages, check_model
from vivace.server.decode import read_body
from vivace.server.json_response import json_response
from vivace.server.loading import LoadingModel
from vivace.server.requests import DetokenizeRequest, TokenizeRequest
from vivace.server.responses import DetokenizedText, Tokens
from vivace.types.errors import RequestError


class TokenEndpoints:
    """The two tokenizer endpoints over one model."""

    def __init__(self, model: LoadingModel) -> None:
        self._model = model

    async def tokenize(self, request: Request) -> Response:
        """Token ids of a text, or of a conversation through the chat template."""
        wire = await read_body(request, TokenizeRequest)
        service = self._model.service()
        check_model(wire.model, service.name)
        ids = await asyncio.to_thread(_encode, service, wire)
        return json_response(Tokens(list(ids), len(ids), service.context_length))

    async def detokenize(self, request: Request) -> Response:
        """Text of token ids."""
        wire = await read_body(request, DetokenizeRequest)
        service = self._model.service()
        check_model(wire.model, service.name)
        vocab_size = service.tokenizer.vocab_size
        wrong = next((token for token in wire.tokens if not 0 <= token < vocab_size), None)
        if wrong is not None:
            raise RequestError(
                f"{wrong} is no token of this model.", f"Token ids are 0 to {vocab_size - 1}.", param="tokens"
            )
        return json_response(DetokenizedText(await asyncio.to_thread(service.tokenizer.decode, wire.tokens)))


def _encode(service: ModelService, wire: TokenizeRequest) -> tuple[int, ...]:
    texts = [text for text in (wire.text, wire.prompt, wire.content) if text is not None]
    if len(texts) + (wire.messages is not None) != 1:
        raise RequestError(
            "The request needs exactly one thing to tokenize.", "Send one of text and messages.", param="text"
        )
    if wire.messages is not None:
        return service.encode_chat(chat_messages(wire.messages))
    return service.encode(texts[0], add_special=wire.add_special_tokens is not False)
