"""The sequences of one request, and which of them still wait for the prompt they share."""

from dataclasses import dataclass, field

from vivace.cache.policies import parse_policy
from vivace.sample.settings import DrawSettings
from vivace.schedule.blocks import BlockDesk
from vivace.schedule.config import SchedulerConfig
from vivace.schedule.sequence import Sequence, SequenceState
from vivace.types.errors import ContextLengthError, RequestError
from vivace.types.request import GenerationRequest


@dataclass(slots=True)
class RequestGroup:
    """`live` by choice; `unforked` are those that start once the first choice has computed the prompt."""

    request: GenerationRequest
    live: dict[int, Sequence] = field(default_factory=dict)
    unforked: list[Sequence] = field(default_factory=list)


def build_group(
    request: GenerationRequest, seed: int, config: SchedulerConfig, blocks: BlockDesk, *, arrival: int, first_id: int
) -> RequestGroup:
    """The n sequences of a request, numbered from `first_id`; the first waits to run, the others for its prompt.

    Raises:
        ContextLengthError: prompt and answer fit neither the context nor the KV memory.
        RequestError: the answer that is to be continued has as many tokens as it may have.
    """
    policy = config.policy if request.kv_policy is None else parse_policy(request.kv_policy)
    max_known = _max_known(request, min(request.context_length or config.context_length, blocks.most_known(policy)))
    stop_ids = frozenset(request.stopping.stop_token_ids)
    if not request.stopping.ignore_eos:
        stop_ids |= config.eos_ids
    group = RequestGroup(request)
    for choice in range(request.n):
        settings = draw_settings(request, seed, choice)
        sequence = Sequence(first_id + choice, request, (arrival, choice), settings, stop_ids, max_known, policy=policy)
        sequence.table, sequence.local_table = blocks.new_tables()
        group.live[choice] = sequence
        if choice:
            sequence.state = SequenceState.UNFORKED
            group.unforked.append(sequence)
    return group


def _max_known(request: GenerationRequest, limit: int) -> int:
    """Known tokens at which the answer ends; the last one is never computed and needs no slot."""
    num_prompt, num_known = len(request.prompt_ids), len(request.prompt_ids) + len(request.answer_ids)
    max_tokens = request.stopping.max_tokens
    wanted = limit if max_tokens is None else num_prompt + max_tokens
    if num_known >= wanted and num_known < limit:
        raise RequestError(
            f"The answer has all of its {len(request.answer_ids)} tokens.", "Raise max_tokens, so that it can go on."
        )
    if num_known >= limit or wanted > limit:
        raise ContextLengthError(
            f"The prompt has {num_prompt} tokens, the answer may have {max_tokens or 1}, and the engine holds {limit}.",
            "Shorten the prompt, lower max_tokens, or start the engine with a longer context or more KV memory.",
        )
    return wanted


def draw_settings(request: GenerationRequest, seed: int, choice: int) -> DrawSettings:
    """How the tokens of one choice are drawn; one that goes on from known tokens keeps its random stream."""
    num_prompt, more = len(request.prompt_ids), request.continuation
    grammar = None if request.grammar is None else request.grammar.follow()
    if more is None:
        return DrawSettings(request.sampling, seed, choice, num_prompt, request.logprobs, grammar=grammar)
    return DrawSettings(
        request.sampling,
        seed,
        more.choice + choice,
        num_prompt,
        request.logprobs,
        attempt=more.attempt,
        banned_at=num_prompt + len(more.answer_ids),
        banned=more.banned_first,
        grammar=grammar,
    )
