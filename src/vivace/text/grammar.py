"""Grammars of answers: JSON schemas, regular expressions and context-free grammars, through the package llguidance.

Owns the automaton of each answer. The package is an extra: it is imported when the first grammar comes.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vivace.text.tokenizer import Tokenizer
from vivace.types.errors import EngineError, RequestError
from vivace.types.grammar import GrammarKind, GrammarSource

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

KEPT_GRAMMARS = 64
ONE_BLANK = {"whitespace_pattern": r" ?"}  # between the parts of JSON: small models fill pages with blanks otherwise
MISSING = "Structured output needs the package llguidance, which is not installed."
HOW_TO_GET_IT = "Install it: pip install 'vivace[grammar]'"


class GrammarCompiler:
    """Makes grammars over the tokens of one model; may be used from any thread.

    Args:
        tokenizer: of the model.
        vocab_size: columns of its logits; those beyond the tokenizer's are never let through.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._lock = threading.Lock()
        self._tokens: LLTokenizer | None = None
        self._kept: OrderedDict[tuple[GrammarKind, str], CompiledGrammar] = OrderedDict()

    def compile(self, kind: GrammarKind, text: str, param: str) -> "CompiledGrammar":
        """Read a grammar; the last KEPT_GRAMMARS are remembered.

        Args:
            kind: `json`: a JSON schema; `regex`: of the whole answer, in Rust's syntax; `grammar`: in Lark's.
            text: of the grammar.
            param: the request parameter that errors are about.

        Raises:
            RequestError: the grammar is wrong, or the package is not installed.
        """
        with self._lock:
            found = self._kept.get((kind, text))
            if found is None:
                found = self._kept[kind, text] = self._compile(kind, text, param)
            self._kept.move_to_end((kind, text))
            while len(self._kept) > KEPT_GRAMMARS:
                self._kept.popitem(last=False)
            return found

    def _compile(self, kind: GrammarKind, text: str, param: str) -> "CompiledGrammar":
        try:
            from llguidance import LLMatcher, LLTokenizer
        except ImportError:
            raise RequestError(MISSING, HOW_TO_GET_IT, param=param) from None
        if not self._tokenizer.eos_ids:
            raise RequestError("The model has no token that ends an answer.", "Leave the structure out.", param=param)
        if self._tokens is None:
            ids = sorted(self._tokenizer.eos_ids)
            self._tokens = LLTokenizer(_Tokens(self._tokenizer), n_vocab=self._tokenizer.vocab_size, eos_token=ids)
        try:
            if kind == "json":
                grammar = LLMatcher.grammar_from_json_schema(text, defaults=ONE_BLANK)
            elif kind == "regex":
                grammar = LLMatcher.grammar_from_regex(text)
            else:
                grammar = LLMatcher.grammar_from_lark(text)
            matcher = LLMatcher(self._tokens, grammar, log_level=0)
            fault = matcher.get_error()
        except ValueError as error:
            fault = str(error)
        if fault:
            told = " ".join(fault.split())[:300]
            raise RequestError(f"The grammar in {param} cannot be read: {told}", "Correct it.", param=param)
        compiled = CompiledGrammar(GrammarSource(kind, text), matcher, self._tokenizer.vocab_size, self._vocab_size)
        try:
            can_begin = bool(compiled.follow().allowed(np.zeros(0, np.int32)).any())
        except RequestError:
            can_begin = False
        if not can_begin:
            raise RequestError(f"No answer fits the grammar in {param}.", "Let it accept something.", param=param)
        return compiled


class _Tokens:
    """A tokenizer as llguidance wants it (`llguidance.TokenizerWrapper`)."""

    is_tokenizer_wrapper = True

    def __init__(self, tokenizer: Tokenizer) -> None:
        ids = range(tokenizer.vocab_size)
        self._tokenizer = tokenizer
        self.bos_token_id = tokenizer.bos_id
        self.eos_token_id = min(tokenizer.eos_ids)
        self.tokens = [tokenizer.visible_bytes(number, skip_special=False) for number in ids]
        self.special_token_ids = [number for number in ids if tokenizer.visible_bytes(number) != self.tokens[number]]

    def __call__(self, text: str | bytes) -> list[int]:
        """Ids of a text; of bytes that are no text, none."""
        shown = text if isinstance(text, str) else text.decode("utf-8", "ignore")
        return self._tokenizer.encode(shown, add_special=False)


class CompiledGrammar:
    """A Grammar (`types.grammar`); the automaton in it is only ever copied."""

    def __init__(self, source: GrammarSource, matcher: "LLMatcher", num_tokens: int, vocab_size: int) -> None:
        self.source = source
        self._matcher = matcher
        self._num_tokens = num_tokens
        self._vocab_size = vocab_size

    def follow(self) -> "MatcherMask":
        """Begin with a new answer."""
        return MatcherMask(self._matcher.deep_copy(), self._num_tokens, self._vocab_size)


class MatcherMask:
    """A TokenMask: an automaton that is rolled back or moved on to the answer it is asked about.

    So a draft that fell needs no care: the next question is about another answer.
    """

    def __init__(self, matcher: "LLMatcher", num_tokens: int, vocab_size: int) -> None:
        self._matcher = matcher
        self._consumed: list[int] = []
        self._num_tokens = num_tokens
        self._bits = np.zeros(-(-num_tokens // 32), dtype=np.int32)
        self._vocab_size = vocab_size

    def allowed(self, answer: NDArray[np.int32]) -> NDArray[np.bool_]:
        """See `types.grammar.TokenMask`."""
        self._go_to(answer.tolist())
        self._matcher.unsafe_compute_mask_ptr(self._bits.ctypes.data, self._bits.nbytes)
        if self._matcher.is_error():
            reason = self._matcher.get_error().split("\n", 1)[0]  # what follows is the package's own state
            raise RequestError(f"The grammar of the answer failed: {reason}.", "Ask for a simpler one.")
        bits = np.unpackbits(self._bits.view(np.uint8), bitorder="little", count=self._num_tokens).view(np.bool_)
        return np.concatenate((bits, np.zeros(self._vocab_size - self._num_tokens, dtype=np.bool_)))

    def num_valid(self, answer: NDArray[np.int32], drafts: Sequence[int]) -> int:
        """See `types.grammar.TokenMask`."""
        try:
            self._go_to(answer.tolist())
        except EngineError:  # told by `allowed`
            return 0
        return int(self._matcher.validate_tokens(list(drafts)))

    def _go_to(self, answer: list[int]) -> None:
        """Bring the automaton behind this answer."""
        num_shared = len(self._consumed)
        if answer[:num_shared] != self._consumed:
            pairs = zip(answer, self._consumed, strict=False)
            num_shared = next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(answer), num_shared))
        if num_shared < len(self._consumed):
            self._matcher.rollback(len(self._consumed) - num_shared)
            del self._consumed[num_shared:]
        rest = answer[num_shared:]
        taken = self._matcher.try_consume_tokens(rest) if rest else 0
        self._consumed += rest[:taken]
        if taken < len(rest):
            raise EngineError("The answer so far does not fit its grammar.")
