"""What the stream side of the server needs to know of a reply, whatever API it is written for."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, Protocol, Self, TypeVar

from vivace.stream.journal import Progress, SavedRun
from vivace.stream.options import RunOptions
from vivace.stream.work import Writer
from vivace.types.request import GenerationRequest


class Reply(Writer, Protocol):
    """Writes the answer to one HTTP request. Its fields are all that a restart needs to go on."""

    @property
    def model(self) -> str:
        """The name the answer is given under."""
        ...

    @property
    def engine_requests(self) -> Sequence[GenerationRequest]:
        """What the engine is asked; answer c of request p is choice p * n + c."""
        ...

    @property
    def opens_at_once(self) -> bool:
        """Whether something is written before the engine has begun."""
        ...

    def seeded(self) -> Self:
        """The same reply with every seed fixed, so that the same answer can be had again."""
        ...

    def restore(self, saved: SavedRun) -> None:
        """Take up what was written before a restart."""
        ...


ReplyT = TypeVar("ReplyT")


@dataclass(frozen=True, slots=True)
class Kept(Generic[ReplyT]):
    """What the journal keeps of a request: its seeds are fixed, so the same answer can be computed again.

    Args:
        reply: the request, and what all events of its answer share.
        options: of its stream.
        begun: what of the answer another stream has told already, by choice: it is not told again.
    """

    reply: ReplyT
    options: RunOptions
    begun: Mapping[int, Progress] = field(default_factory=dict)


def with_seed(request: GenerationRequest) -> GenerationRequest:
    """The request with its seed fixed."""
    if request.sampling.seed is not None:
        return request
    return replace(request, sampling=replace(request.sampling, seed=secrets.randbits(63)))
