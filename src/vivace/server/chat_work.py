"""A chat request as the work of a stream: what the journal keeps of it, and where its chunks come from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from vivace.engine.service import ModelService
from vivace.server.chat_reply import ChatReply
from vivace.server.safety import Safety
from vivace.stream.flush import FlushStage, flush_policy
from vivace.stream.journal import Progress
from vivace.stream.options import RunOptions
from vivace.stream.source import ChoiceSources, Generator, is_plain
from vivace.stream.work import Work


@dataclass(frozen=True, slots=True)
class KeptChat:
    """What the journal keeps of a chat request: its seed is fixed, so the same answer can be computed again.

    Args:
        reply: the request, and what all events of its answer share.
        options: of its stream.
        begun: what of the answer another stream has told already, by choice: it is not told again.
    """

    reply: ChatReply
    options: RunOptions
    begun: Mapping[int, Progress] = field(default_factory=dict)


def chat_work(service: ModelService, safety: Safety, kept: KeptChat, progress: Mapping[int, Progress]) -> Work:
    """The answer to a chat request, from its beginning or from where it broke off.

    Args:
        service: the model.
        safety: what may not leave.
        kept: the request.
        progress: what is known of the answer; it is told again, without being computed again.
    """
    request = kept.reply.request
    stages = (*safety.stages(), FlushStage(flush_policy(kept.options.flush)))
    work = partial(Work, writer=kept.reply, stages=stages, num_choices=request.n, num_prompt=len(request.prompt_ids))
    if is_plain(progress, request):
        return work(service.stream(request), partial(service.cancel, request.request_id))
    sources = ChoiceSources(request, Generator(service.stream, service.cancel), progress)
    told = [source.chunks() for source in sources.sources]
    return work(sources.joined(told), sources.stop)
