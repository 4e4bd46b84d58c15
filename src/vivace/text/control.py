"""Which tokens of a vocabulary are control tokens, and which of those end an answer."""

import re

# Ends of turn under the names in use; a base model's vocabulary may hold them too, where they do no harm.
END_OF_TURN = frozenset(
    {
        "<|im_end|>",
        "<|eot_id|>",
        "<|eom_id|>",
        "<end_of_turn>",
        "<|end|>",
        "<|endoftext|>",
        "<|end_of_text|>",
        "<|end_of_turn|>",
        "<|EOT|>",
        "<end_of_utterance>",
        "<｜end▁of▁sentence｜>",
    }
)

_MARKER = re.compile(r"<\|[^|<>\s]+\|>|<｜[^｜<>\s]+｜>")


def looks_like_control(text: str) -> bool:
    """Whether an added token is a control token by its look, though its file does not say so.

    Converters have written turn markers such as <|end|> as user-defined tokens; then a user could type one.
    """
    return text in END_OF_TURN or _MARKER.fullmatch(text) is not None
