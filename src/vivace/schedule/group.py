"""The sequences of one request, and which of them still wait for the prompt they share."""

from dataclasses import dataclass, field

from vivace.cache.block_pool import BlockPool
from vivace.cache.block_table import num_blocks_for
from vivace.sample.settings import DrawSettings
from vivace.schedule.config import SchedulerConfig
from vivace.schedule.sequence import Sequence, SequenceState
from vivace.types.errors import ContextLengthError
from vivace.types.request import GenerationRequest
from vivace.types.step import BLOCK_SIZE


@dataclass(slots=True)
class RequestGroup:
    """`live` by choice; `unforked` are those that start once the first choice has computed the prompt."""

    request: GenerationRequest
    live: dict[int, Sequence] = field(default_factory=dict)
    unforked: list[Sequence] = field(default_factory=list)


def build_group(
    request: GenerationRequest, seed: int, config: SchedulerConfig, pool: BlockPool, *, arrival: int, first_id: int
) -> RequestGroup:
    """The n sequences of a request, numbered from `first_id`; the first waits to run, the others for its prompt.

    Raises:
        ContextLengthError: prompt and answer fit neither the context nor the KV memory.
    """
    max_known = _max_known(request, config, pool)
    stop_ids = frozenset(request.stopping.stop_token_ids)
    if not request.stopping.ignore_eos:
        stop_ids |= config.eos_ids
    group = RequestGroup(request)
    for choice in range(request.n):
        settings = DrawSettings(request.sampling, seed, choice, len(request.prompt_ids), request.logprobs)
        sequence = Sequence(first_id + choice, request, (arrival, choice), settings, stop_ids, max_known)
        group.live[choice] = sequence
        if choice:
            sequence.state = SequenceState.UNFORKED
            group.unforked.append(sequence)
    return group


def _max_known(request: GenerationRequest, config: SchedulerConfig, pool: BlockPool) -> int:
    """Known tokens at which the answer ends; the last one is never computed and needs no slot."""
    num_prompt = len(request.prompt_ids)
    limit = min(config.context_length, pool.num_blocks * BLOCK_SIZE + 1)
    max_tokens = request.stopping.max_tokens
    wanted = limit if max_tokens is None else num_prompt + max_tokens
    if num_prompt >= limit or wanted > limit:
        raise ContextLengthError(
            f"The prompt has {num_prompt} tokens, the answer may have {max_tokens or 1}, and the engine holds {limit}.",
            "Shorten the prompt, lower max_tokens, or start the engine with a longer context or more KV memory.",
        )
    assert num_blocks_for(wanted - 1) <= pool.num_blocks
    return wanted
