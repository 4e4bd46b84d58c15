"""A vivace model as lm-evaluation-harness knows models, so that its tasks can be asked (extra `lm-eval`).

Seams between context and continuation, prefixes of empty contexts and rolling windows are the harness's own, so that
figures can stand beside those of other engines. One sequence at a time; a context is computed once for all its
continuations that follow one another.
"""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from vivace.evaluate.tasks import Subject, continue_greedily, tail_log_probabilities
from vivace.execute.native import NativeExecutor
from vivace.files.catalogue import resolve
from vivace.files.open import open_model
from vivace.graph.build import build_graph
from vivace.text.build import build_template, build_tokenizer
from vivace.types.errors import ConfigError
from vivace.types.request import ChatMessage
from vivace.types.step import BLOCK_SIZE

_MOST_TOKENS = 4096  # of context and continuation, where the model's own context is longer
_MOST_GENERATED = 256  # where a task says nothing, as in the harness


@register_model("vivace")
class VivaceLM(TemplateLM):  # type: ignore[misc]  # the harness has no types
    """One open model.

    Args:
        pretrained: a catalogue name, a .gguf file or a Hugging Face folder.
        max_length: most tokens of context and continuation; None is the model's own context, at most 4,096.
        activation_bits: 12, 8 or 32.
        threads: that compute; None is the machine's cores.

    Raises:
        VivaceError: the model can never work.
    """

    def __init__(
        self,
        pretrained: str | Path,
        max_length: int | None = None,
        activation_bits: int = 12,
        threads: int | None = None,
        **_: object,  # the harness adds batch_size and device, which mean nothing here
    ) -> None:
        super().__init__()
        self._model = open_model(resolve(str(pretrained)))
        if self._model.vocabulary is None:
            raise ConfigError(f"{self._model.path} has no vocabulary to read text with.", "Use a whole model file.")
        tokenizer = build_tokenizer(self._model.vocabulary)
        self._template = build_template(self._model.vocabulary, tokenizer)
        wanted = min(self._model.spec.context_length, max_length or _MOST_TOKENS)
        executor = NativeExecutor(
            build_graph(self._model.spec),
            self._model.weights,
            num_blocks=-(-wanted // BLOCK_SIZE),
            num_threads=threads,
            activation_bits=activation_bits,
        )
        self._subject = Subject(executor, tokenizer)
        self._most_tokens = wanted

    @property
    def eot_token_id(self) -> int:
        """The id that ends a text; 0 for a vocabulary that has none."""
        return self._subject.tokenizer.eos_id or 0

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text without a context: the begin of a sequence, or the end of the text before."""
        bos = self._subject.tokenizer.bos_id
        return self.eot_token_id if bos is None or not self._subject.tokenizer.adds_bos else bos

    @property
    def tokenizer_name(self) -> str:
        """The model's path, under which the harness keeps requests."""
        return str(self._model.path)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: object) -> list[int]:
        """Tokens of a text; control tokens that a chat template wrote are control tokens."""
        return self._subject.tokenizer.encode(string, add_special=add_special_tokens is not False, parse_special=True)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """A conversation as text."""
        messages = [ChatMessage(turn["role"], turn["content"]) for turn in chat_history]
        text = self._template.render(messages, add_generation_prompt=add_generation_prompt)
        named = self._subject.tokenizer.named_tokens.get("bos_token")
        return text.removeprefix(named) if named and self._subject.tokenizer.adds_bos else text

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The template's source, which the harness writes into its results."""
        return self._template.source if chat_template else None

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[tuple[str, str], list[int], list[int]]], **ignored: object
    ) -> list[tuple[float, bool]]:
        """(log-probability, greedy) of continuations; a context that is too long loses its start."""
        found: list[tuple[float, bool]] = []
        for context, group in groupby(requests, lambda request: request[1]):
            same = list(group)
            longest = max(len(tail) for _, _, tail in same)
            kept = context[-max(self._most_tokens - longest, 1) :]
            tails = [tail[: self._most_tokens - len(kept)] for _, _, tail in same]
            scores = tail_log_probabilities(self._subject, kept, tails)
            for (texts, _, _), score in zip(same, scores, strict=True):
                self.cache_hook.add_partial("loglikelihood", texts, score)
            found.extend(scores)
        return found

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Log-probability of whole texts, in windows with as much context as there is."""
        found = []
        for (text,) in (request.args for request in requests):
            windows = get_rolling_token_windows(
                self.tok_encode(text, add_special_tokens=False), self.prefix_token_id, self._most_tokens - 1, 1
            )
            pairs = (make_disjoint_window(window) for window in windows)
            found.append(sum(tail_log_probabilities(self._subject, head, [tail])[0][0] for head, tail in pairs))
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), found[-1])
        return found

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Greedy answers, cut before the first stop.

        Raises:
            ConfigError: a task draws at random, which this adapter does not.
        """
        found = []
        for prompt, asked in (request.args for request in requests):
            if asked.get("do_sample") and float(asked.get("temperature", 1.0)) > 0:
                raise ConfigError("A task draws its answers at random.", "Give it gen_kwargs do_sample: false.")
            stops = [asked["until"]] if isinstance(asked.get("until"), str) else list(asked.get("until") or ())
            most = min(int(asked.get("max_gen_toks", _MOST_GENERATED)), self._most_tokens - 1)
            text = continue_greedily(self._subject, self.tok_encode(prompt)[-(self._most_tokens - most) :], most, stops)
            for stop in filter(None, stops):
                text = text.split(stop)[0]
            self.cache_hook.add_partial("generate_until", (prompt, asked), text)
            found.append(text)
        return found
