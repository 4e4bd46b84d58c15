"""From engine events to text: detokenising, stop strings, log-probabilities as text, usage.

Owns the text of one request. A stop string ends a choice here; the engine learns of it through `take_cancels`, and
tokens that it drew in the meantime are neither shown nor counted.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from vivace.telemetry.timeline import StageTimeline
from vivace.text.detokenize import IncrementalDetokenizer
from vivace.text.stop import StopMatcher
from vivace.text.tokenizer import Tokenizer
from vivace.types.answer import Answer, AnswerChunk, Choice, TextLogprob, Usage
from vivace.types.errors import EngineError
from vivace.types.events import EngineEvent, FailEvent, FinishEvent, FinishReason, TokenEvent, TokenLogprob
from vivace.types.request import GenerationRequest
from vivace.types.speculation import SpeculationUsage, together


@dataclass(slots=True)
class _ChoiceText:
    """Text of one choice under way."""

    detokenizer: IncrementalDetokenizer
    matcher: StopMatcher
    num_tokens: int = 0
    has_stopped: bool = False


class AnswerBuilder:
    """Turns the events of one request into chunks.

    Args:
        request: whose events are fed.
        tokenizer: spells the tokens.
    """

    def __init__(self, request: GenerationRequest, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._request_id = request.request_id
        self._more = request.continuation
        self._max_tokens = request.stopping.max_tokens
        self._num_prompt = len(request.prompt_ids)
        self._num_dropped = request.dropped_tokens
        self._choices = {
            choice: _ChoiceText(
                IncrementalDetokenizer(tokenizer, continues=request.continues_text),
                StopMatcher(request.stopping.stop),
            )
            for choice in range(request.n)
        }
        self._cancels: list[int] = []
        self._num_completion = 0
        self._num_cached = 0
        self._speculation: SpeculationUsage | None = None

    @property
    def done(self) -> bool:
        """Whether no event is to come."""
        return not self._choices

    def feed(self, events: Iterable[EngineEvent]) -> Iterator[AnswerChunk]:
        """Take events in order; yields the chunks they make.

        Raises:
            VivaceError: the request failed; the builder is done then.
        """
        for event in events:
            if isinstance(event, TokenEvent):
                text = self._choices.get(event.choice)
                if text is not None and not text.has_stopped:
                    yield self._token_chunk(event, text)
            elif isinstance(event, FinishEvent):
                if event.choice in self._choices:
                    yield self._closing_chunk(event)
            elif isinstance(event, FailEvent):
                self._choices.clear()
                raise event.error

    def replay(self) -> Iterator[AnswerChunk]:
        """The chunks of the tokens that the answer begins with; the closing one too when no more may follow them.

        To be read before the first `feed`.
        """
        if self._more is None:
            return
        (text,) = self._choices.values()
        for index, token_id in enumerate(self._more.answer_ids):
            if not text.has_stopped:
                yield self._token_chunk(TokenEvent(self._request_id, 0, index, token_id), text)
        self._cancels.clear()
        if text.has_stopped or text.num_tokens == self._max_tokens:
            yield self._closing_chunk(
                FinishEvent(self._request_id, 0, "length", self._num_prompt, text.num_tokens, self._num_prompt)
            )

    @property
    def is_settled(self) -> bool:
        """Whether the text of all tokens so far was told: no half character, no beginning of a stop string."""
        return all(not text.matcher.num_held and text.detokenizer.is_whole for text in self._choices.values())

    def take_cancels(self) -> list[int]:
        """Choices that ended at a stop string since the last call, to be cancelled in the engine."""
        cancels, self._cancels = self._cancels, []
        return cancels

    def _token_chunk(self, event: TokenEvent, text: _ChoiceText) -> AnswerChunk:
        shown, text.has_stopped = text.matcher.feed(text.detokenizer.add(event.token_id))
        text.num_tokens += 1
        if text.has_stopped:
            self._cancels.append(event.choice)
        return AnswerChunk(
            choice=event.choice,
            text=shown,
            token_ids=(event.token_id,),
            logprobs=() if event.logprob is None else (self._text_logprob(event.logprob),),
        )

    def _closing_chunk(self, event: FinishEvent) -> AnswerChunk:
        text = self._choices.pop(event.choice)
        rest, matched = text.matcher.feed(text.detokenizer.flush())
        rest += text.matcher.finish()
        reason: FinishReason = "stop" if matched else event.reason
        num_tokens = text.num_tokens if text.has_stopped else event.num_generated
        self._num_completion += num_tokens
        if event.choice == 0:
            self._num_cached = min(self._num_prompt, event.num_cached_tokens)
        self._speculation = together((self._speculation, event.speculation))
        counts = (self._num_prompt, self._num_completion, self._num_cached, self._num_dropped)
        usage = Usage(*counts, self._speculation) if self.done else None
        return AnswerChunk(event.choice, rest, finish_reason=reason, usage=usage)

    def _text_logprob(self, logprob: TokenLogprob) -> TextLogprob:
        spelled = self._spell(logprob.token_id)
        top = tuple((*self._spell(token_id), value) for token_id, value in logprob.top)
        return TextLogprob(*spelled, logprob.logprob, top)

    def _spell(self, token_id: int) -> tuple[str, bytes]:
        data = self._tokenizer.visible_bytes(token_id, skip_special=False)
        return data.decode("utf-8", "replace"), data


def assemble(chunks: Sequence[AnswerChunk], num_choices: int, timeline: StageTimeline) -> Answer:
    """The whole answer from all of its chunks.

    Raises:
        EngineError: a choice has no end.
    """
    usage = next((chunk.usage for chunk in reversed(chunks) if chunk.usage is not None), None)
    if usage is None:
        raise EngineError("The answer broke off without an end.")
    by_choice: list[list[AnswerChunk]] = [[] for _ in range(num_choices)]
    for chunk in chunks:
        by_choice[chunk.choice].append(chunk)
    return Answer(tuple(_assemble_choice(mine) for mine in by_choice), usage, timeline.seconds())


def _assemble_choice(chunks: Sequence[AnswerChunk]) -> Choice:
    return Choice(
        text="".join(chunk.text for chunk in chunks),
        token_ids=tuple(token for chunk in chunks for token in chunk.token_ids),
        finish_reason=chunks[-1].finish_reason or "cancelled",
        logprobs=tuple(logprob for chunk in chunks for logprob in chunk.logprobs),
    )
