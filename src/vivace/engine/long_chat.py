"""What happens to a conversation that has outgrown the context: rows of LONG_CHAT_NAMES.

`reject` answers it with an error. `window` and `adaptive` go on under the KV policy of that name (cache/policies.py),
in bounded memory, up to the context that the model was trained for; beyond that they drop turns as `truncate` does.

`truncate` drops whole turns (a user's message with its answer) after the first one, oldest first; system messages and
the first turn stay. It drops down to `KEPT_SHARE` of the room at once and then leaves the cut where it is until the
room is full again, so that from turn to turn the prompt only grows and the prefix cache keeps serving it. The cut is a
function of the conversation alone: it is found by playing the turns from the start, and no state is kept anywhere.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vivace.cache.policies import parse_policy
from vivace.types.errors import RequestError
from vivace.types.request import ChatMessage
from vivace.types.step import BLOCK_SIZE

LONG_CHAT_NAMES = ("reject", "truncate", "window", "adaptive")
KEPT_SHARE = 0.6
MESSAGE_OVERHEAD = 8  # tokens that a template writes around a message, rather too many than too few
ANSWER_ROOM = 512  # tokens kept free for an answer without max_tokens, at most a quarter of the context

Encode = Callable[[Sequence[ChatMessage]], tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class FittedChat:
    """A prompt, and how many tokens of the conversation are not in it."""

    prompt_ids: tuple[int, ...]
    dropped_tokens: int = 0


@dataclass(frozen=True, slots=True)
class _Turn:
    """A user's message with what follows it; sizes are estimates in tokens, without and with what follows."""

    messages: tuple[ChatMessage, ...]
    asked: int
    answered: int


@dataclass(frozen=True, slots=True)
class LongChat:
    """How a service treats long chats.

    Args:
        kind: a row of LONG_CHAT_NAMES.
        reach: most tokens of a chat under a policy that bounds its memory: the model's own context, or the engine's
            where the KV memory is too small for such a policy.
    """

    kind: str
    reach: int

    def __post_init__(self) -> None:
        check_long_chat(self.kind)


def chat_policy(kind: str, context_length: int) -> str | None:
    """The KV policy that a chat goes on under once it has outgrown a context; None: the engine's own."""
    if kind == "window":
        return f"window:{max(BLOCK_SIZE, context_length // 2 // BLOCK_SIZE * BLOCK_SIZE)}"
    return "adaptive" if kind == "adaptive" else None


def choose_reach(context_length: int, trained: int, num_slots: int, chunk: int) -> int:
    """How far chats may go under every policy of `chat_policy`.

    Args:
        context_length: the engine's.
        trained: the model's.
        num_slots: positions that the KV memory holds.
        chunk: most positions of a sequence in one step.
    """
    policies = [parse_policy(chat_policy(kind, context_length) or "full") for kind in ("window", "adaptive")]
    needed = max(policy.most_held for policy in policies) + chunk + 3 * BLOCK_SIZE
    return max(context_length, trained) if needed <= num_slots else context_length


def check_long_chat(kind: object) -> str:
    """The name of a row.

    Raises:
        RequestError: there is none of that name.
    """
    if not isinstance(kind, str) or kind not in LONG_CHAT_NAMES:
        raise RequestError(
            f"long_chat is {str(kind)[:60]!r}.", f"Give one of {', '.join(LONG_CHAT_NAMES)}.", param="long_chat"
        )
    return kind


def prompt_room(context_length: int, max_tokens: int | None) -> int:
    """Tokens that a prompt may have beside its answer."""
    return context_length - (min(ANSWER_ROOM, context_length // 4) if max_tokens is None else max_tokens)


def truncate(messages: Sequence[ChatMessage], room: int, encode: Encode, count: Callable[[str], int]) -> FittedChat:
    """Fit a conversation into `room` tokens by dropping turns.

    Args:
        messages: the conversation, ending with what is to be answered.
        room: most tokens of the prompt.
        encode: a conversation to its prompt.
        count: tokens of a text.

    Returns:
        The prompt; longer than `room` only when the system messages and the last turn alone are.
    """
    whole = encode(messages)
    if len(whole) <= room * KEPT_SHARE:
        return FittedChat(whole)
    head, turns = _split(messages, count)
    first_kept = _cut(sum(_size(message, count) for message in head), turns, room)
    keeps_first = len(turns) > 1
    while True:
        kept = turns[first_kept:] if first_kept > 1 else turns[1:]
        opening = turns[:1] if keeps_first or len(turns) == 1 else []
        prompt = encode([*head, *(message for turn in (*opening, *kept) for message in turn.messages)])
        if len(prompt) <= room or (first_kept >= len(turns) - 1 and not keeps_first):
            return FittedChat(prompt, len(whole) - len(prompt))
        if first_kept < len(turns) - 1:
            first_kept = max(first_kept, 1) + 1
        else:
            keeps_first = False


def _cut(head: int, turns: Sequence[_Turn], room: int) -> int:
    """The first turn that is kept after turn 0, as it stands after playing all turns."""
    first_kept = 1
    for last in range(1, len(turns)):
        total = head + turns[0].answered + sum(turn.answered for turn in turns[first_kept:last]) + turns[last].asked
        if total <= room:
            continue
        while total > room * KEPT_SHARE and first_kept < last:
            total -= turns[first_kept].answered
            first_kept += 1
    return first_kept


def _split(messages: Sequence[ChatMessage], count: Callable[[str], int]) -> tuple[list[ChatMessage], list[_Turn]]:
    """System messages at the start, then turns."""
    start = next((index for index, message in enumerate(messages) if message.role != "system"), len(messages))
    groups: list[list[ChatMessage]] = []
    for message in messages[start:]:
        if message.role == "user" or not groups:
            groups.append([])
        groups[-1].append(message)
    turns = []
    for group in groups:
        asked = _size(group[0], count)
        turns.append(_Turn(tuple(group), asked, asked + sum(_size(message, count) for message in group[1:])))
    return list(messages[:start]), turns


def _size(message: ChatMessage, count: Callable[[str], int]) -> int:
    return count(message.content) + MESSAGE_OVERHEAD
