"""Log probabilities on the wire, in the two shapes of the two APIs."""

from collections.abc import Sequence

from vivace.server.responses import ChatLogprobs, CompletionLogprobs, WireAlternative, WireLogprob
from vivace.types.answer import TextLogprob


def chat_logprobs(tokens: Sequence[TextLogprob]) -> ChatLogprobs:
    """The chat API's shape: one object a token with its alternatives."""
    return ChatLogprobs([_wire_logprob(token) for token in tokens])


def completion_logprobs(tokens: Sequence[TextLogprob], *, offset: int, with_top: bool) -> CompletionLogprobs:
    """The completions API's shape: columns. `offset` is where the first token starts in the text, in characters."""
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token.text)
    return CompletionLogprobs(
        tokens=[token.text for token in tokens],
        token_logprobs=[token.logprob for token in tokens],
        top_logprobs=[{text: logprob for text, _, logprob in token.top} for token in tokens] if with_top else None,
        text_offset=offsets,
    )


def _wire_logprob(token: TextLogprob) -> WireLogprob:
    return WireLogprob(
        token=token.text,
        logprob=token.logprob,
        bytes=list(token.token_bytes),
        top_logprobs=[WireAlternative(text, logprob, list(data)) for text, data, logprob in token.top],
    )
