"""Where text may be cut for sending: after every token, word or sentence. A policy is a row of FLUSH_POLICIES."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from vivace.stream.graphemes import settled_length
from vivace.types.answer import AnswerChunk, TextLogprob
from vivace.types.errors import RequestError

FlushPolicy = Callable[[str], int]
"""Takes the text that is held, whole characters only, and gives the length of the prefix that may go."""

MAX_WORD = 64
MAX_SENTENCE = 600
"""Longer ones are not waited for, so what is held stays bounded."""

_CJK = (
    "\u2e80-\u2fdf\u3000-\u30ff\u31c0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uff9f\U00020000-\U0003ffff"
)
_OPEN_WORD = re.compile(rf"[^\s{_CJK}]*\Z")
_SENTENCE_END = re.compile(
    r"[。！？!?…]+[”’」』）)\"']*(?=[^。！？!?….”’」』）)\"'])"  # an ending mark, known to be the last one
    r"|\.+[”’\"')\]]*(?=\s)"  # a full stop counts before a blank only: 3.14, a.b
    r"|\n"
)
_NO_END = re.compile(r"(?:\b(?:Mr|Mrs|Ms|Dr|Prof|St|vs|etc|No|Fig|e\.g|i\.e)|(?:^|\n)\s*\d{1,3}|\b[A-Z])\.$")


def after_token(text: str) -> int:
    """Everything may go."""
    return len(text)


def after_word(text: str) -> int:
    """All but the word that may still grow; a Chinese or Japanese character is a word by itself."""
    match = _OPEN_WORD.search(text)
    open_length = len(text) - match.start() if match else 0
    return len(text) if open_length > MAX_WORD else len(text) - open_length


def after_sentence(text: str) -> int:
    """Up to the end of the last whole sentence, Chinese or English, or of the last line."""
    end = max(sentence_ends(text), default=0)
    return after_word(text) if len(text) - end > MAX_SENTENCE else end


def sentence_ends(text: str, start: int = 0) -> Iterator[int]:
    """Where sentences or lines of a text end, as far as what follows has made it certain, from `start` on."""
    for match in _SENTENCE_END.finditer(text, start):
        if match.group() == "\n" or not _NO_END.search(text[: match.end()]):
            yield match.end()


def num_settled(text: str) -> int:
    """Characters in which no sentence will be found to end that has not been: all but the marks at the end."""
    return len(text.rstrip("。！？!?….”’」』）)\"']"))


FLUSH_POLICIES: dict[str, FlushPolicy] = {"token": after_token, "word": after_word, "sentence": after_sentence}


def flush_policy(name: str) -> FlushPolicy:
    """A row of FLUSH_POLICIES.

    Raises:
        RequestError: there is none of that name.
    """
    policy = FLUSH_POLICIES.get(name)
    if policy is None:
        raise RequestError(
            f"There is no flush policy {name[:32]!r}.",
            f"Use one of {', '.join(FLUSH_POLICIES)}.",
            param="stream_options.flush",
        )
    return policy


@dataclass(slots=True)
class _Held:
    text: str = ""
    gone: str = ""  # the end of what was handed out
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TextLogprob, ...] = ()


@dataclass(slots=True)
class FlushStage:
    """Holds the text of each choice back until its policy lets it go; a choice's end lets all go.

    The texts handed out add up to the texts taken, and none begins or ends inside a grapheme cluster (see `graphemes`).

    Args:
        policy: see FlushPolicy.
        may_end: whether a text may end like this; where it may not, it is not cut. None: it may end anywhere.
    """

    policy: FlushPolicy
    may_end: Callable[[str], bool] | None = None
    held: dict[int, _Held] = field(default_factory=dict)

    def feed(self, chunk: AnswerChunk) -> Iterator[AnswerChunk]:
        """Take a chunk; yields at most one."""
        held = self.held.setdefault(chunk.choice, _Held())
        held.text += chunk.text
        held.token_ids += chunk.token_ids
        held.logprobs += chunk.logprobs
        has_ended = chunk.finish_reason is not None
        length = len(held.text) if has_ended else self.policy(held.text[: settled_length(held.text)])
        if (
            0 < length < len(held.text)
            and self.may_end is not None
            and not self.may_end(held.gone + held.text[:length])
        ):
            length = 0
        if not (length or has_ended):
            return
        held.gone = (held.gone + held.text[:length])[-MAX_SENTENCE:] if self.may_end is not None else ""
        text, held.text = held.text[:length], held.text[length:]
        yield replace(chunk, text=text, token_ids=held.token_ids, logprobs=held.logprobs)
        held.token_ids, held.logprobs = (), ()
