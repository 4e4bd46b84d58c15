"""How good a model is on a text, and how near to a reference: the figures of a compression, in one pass over windows.

Perplexity as llama.cpp's tool has it: windows one after another, the second half of each scored (`execute/score.py`).
Both models read the same tokens; all figures come from the same positions.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vivace.compress.progress import Report
from vivace.execute.native import NativeExecutor
from vivace.execute.score import Tokens, cut_windows, iterate_logits, log_softmax
from vivace.files.open import LoadedModel, open_model
from vivace.graph.build import build_graph
from vivace.text.build import build_tokenizer
from vivace.types.errors import ConfigError
from vivace.types.kv import DEFAULT_KV_FORMAT
from vivace.types.run_settings import FILE_WEIGHTS, choose_inputs
from vivace.types.step import BLOCK_SIZE, ForwardPass

_LOGIT_ROWS = 32  # positions compared at once


@dataclass(frozen=True, slots=True)
class EvaluationSettings:
    """Windows of `window_tokens` tokens, `num_windows` of them (None: all of the text).

    Activations are in 12 or 8 bits, or in float32 (32: exact); None: as each model's file asks, else 12. Linears run in
    the file's codes, or requantised at load ("int8").
    """

    window_tokens: int = 512
    num_windows: int | None = 30
    activation_bits: int | None = None
    num_threads: int | None = None
    weight_format: str = FILE_WEIGHTS


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The figures. Those beside a reference are None without one; `*_error` is one standard error.

    Attributes:
        ppl: perplexity of the model; `reference_ppl` of the reference.
        ppl_ratio: ppl / reference_ppl, its error from the paired differences.
        kld: mean KL(reference || model) in nats; `kld_99`: what 99 of 100 positions stay under; `kld_max`.
        same_top: how often both find the same token likeliest.
        probability_change: root mean square change of the probability of the text's own token.
        recovery: reference_ppl / ppl, 1 when nothing is lost.
        bytes: of the model's tensors; `reference_bytes` of the reference's.
    """

    num_tokens: int
    ppl: float
    ppl_error: float
    bytes: int
    reference_ppl: float | None = None
    ppl_delta: float | None = None
    ppl_ratio: float | None = None
    ppl_ratio_error: float | None = None
    kld: float | None = None
    kld_error: float | None = None
    kld_99: float | None = None
    kld_max: float | None = None
    same_top: float | None = None
    probability_change: float | None = None
    recovery: float | None = None
    reference_bytes: int | None = None

    def as_dict(self) -> dict[str, float | int | None]:
        """The figures by name."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Gate:
    """What a model must reach; None asks nothing."""

    max_ppl_delta: float | None = None
    min_recovery: float | None = None
    max_kld: float | None = None

    def failures(self, figures: Evaluation) -> list[str]:
        """A sentence for each limit that is missed; [] when the model passes.

        Raises:
            ConfigError: a limit needs a reference, and the figures have none.
        """
        limits = (
            ("perplexity rises by", figures.ppl_delta, self.max_ppl_delta, 1),
            ("recovery is", figures.recovery, self.min_recovery, -1),
            ("KL divergence is", figures.kld, self.max_kld, 1),
        )
        missed = []
        for words, value, limit, sign in limits:
            if limit is None:
                continue
            if value is None:
                raise ConfigError("A quality limit was given without a reference.", "Name one with --against.")
            if not sign * value <= sign * limit:
                missed.append(f"{words} {value:.4g}, the limit is {limit:.4g}")
        return missed


def evaluate_files(
    model_path: Path,
    text: Path,
    reference_path: Path | None,
    settings: EvaluationSettings,
    report: Report = lambda done, total, what: None,
) -> Evaluation:
    """Evaluate a model file or folder on a text file.

    Raises:
        ConfigError: the text is too short or not UTF-8, or the two models do not share a vocabulary.
        ModelFileError: a model is damaged.
    """
    model = open_model(model_path)
    reference = None if reference_path is None else open_model(reference_path)
    try:
        windows = read_windows(model, text, settings)
        if reference is not None and reference.spec.vocab_size != model.spec.vocab_size:
            raise ConfigError(
                f"{model_path.name} has {model.spec.vocab_size} tokens and the reference {reference.spec.vocab_size}.",
                "Compare models of one family.",
            )
        executor = make_executor(model, settings)
        other = None if reference is None else make_executor(reference, settings)
        return evaluate(
            executor,
            windows,
            _bytes(model),
            reference=other,
            reference_bytes=0 if reference is None else _bytes(reference),
            report=report,
        )
    finally:
        for opened in (model, reference):
            if opened is not None:
                opened.close()


def evaluate(
    executor: ForwardPass,
    windows: Sequence[Tokens],
    num_bytes: int,
    *,
    reference: ForwardPass | None = None,
    reference_bytes: int = 0,
    report: Report = lambda done, total, what: None,
) -> Evaluation:
    """Evaluate an executor over windows, beside a reference if there is one."""
    return summarise(read_columns(executor, windows, reference, report), num_bytes, reference_bytes)


def read_columns(
    executor: ForwardPass,
    windows: Sequence[Tokens],
    reference: ForwardPass | None,
    report: Report,
    *,
    first: int | None = None,
) -> "TokenColumns":
    """What both models say of each scored token: those after position `first` of a window; None: of its second half."""
    pieces = []
    for done, window in enumerate(windows):
        report(done, len(windows), "reading")
        pieces.append(_window_columns(executor, reference, window, first))
    report(len(windows), len(windows), "read")
    own, other, kl, same = (np.concatenate(parts) for parts in zip(*pieces, strict=True))
    return TokenColumns(own, None if reference is None else other, kl, same)


def summarise(columns: "TokenColumns", num_bytes: int, reference_bytes: int = 0) -> Evaluation:
    """The figures of a model, and of its distance from the reference if the columns have one."""
    own, other, kl, same = columns.own, columns.reference, columns.kl, columns.same_top
    figures = {"num_tokens": len(own), "bytes": num_bytes, "ppl": math.exp(-own.mean())}
    figures["ppl_error"] = figures["ppl"] * _standard_error(own)
    if other is None:
        return Evaluation(**figures)  # type: ignore[arg-type]
    reference_ppl, ratio = math.exp(-other.mean()), math.exp(other.mean() - own.mean())
    return Evaluation(
        **figures,  # type: ignore[arg-type]
        reference_ppl=reference_ppl,
        ppl_delta=figures["ppl"] - reference_ppl,
        ppl_ratio=ratio,
        ppl_ratio_error=ratio * _standard_error(other - own),
        kld=float(kl.mean()),
        kld_error=_standard_error(kl),
        kld_99=float(np.quantile(kl, 0.99)),
        kld_max=float(kl.max()),
        same_top=float(same.mean()),
        probability_change=float(np.sqrt(np.mean((np.exp(own) - np.exp(other)) ** 2))),
        recovery=1.0 / ratio,
        reference_bytes=reference_bytes,
    )


def read_windows(model: LoadedModel, text: Path, settings: EvaluationSettings) -> list[Tokens]:
    """The windows of a text file in the model's own tokens; fewer when the text is shorter than asked for.

    Raises:
        ConfigError: the text is missing, not UTF-8, or too short for one window; or the model has no vocabulary.
    """
    if model.vocabulary is None:
        raise ConfigError(f"{model.path} has no vocabulary to read text with.", "Use a whole model file.")
    tokenizer = build_tokenizer(model.vocabulary)
    try:
        content = text.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{text} is not UTF-8 (byte {error.start}).", "Convert it to UTF-8.") from None
    except OSError as error:
        raise ConfigError(f"{text} cannot be read: {error.strerror}.", "Check the path.") from None
    if settings.num_windows is not None:  # no token is longer than 64 characters on average
        content = content[: 64 * settings.num_windows * settings.window_tokens]
    size = min(settings.window_tokens, model.spec.context_length)
    ids = tokenizer.encode(content)
    available = len(ids) // size
    wanted = settings.num_windows
    count = None if wanted is None or available < wanted else wanted
    return cut_windows(ids, size, count, tokenizer.bos_id if tokenizer.adds_bos else None)


def make_executor(model: LoadedModel, settings: EvaluationSettings, num_tokens: int | None = None) -> NativeExecutor:
    """A native executor as the model's file asks to be run, with room for one window, or for `num_tokens`."""
    tokens = num_tokens or min(settings.window_tokens, model.spec.context_length)
    asked = model.run_settings
    bits, inputs = choose_inputs(asked, settings.activation_bits)
    return NativeExecutor(
        build_graph(model.spec),
        model.weights,
        num_blocks=-(-tokens // BLOCK_SIZE),
        num_threads=settings.num_threads,
        activation_bits=bits,
        kv_format=asked.kv_format or DEFAULT_KV_FORMAT,
        inputs=inputs,
        weight_format=settings.weight_format,
    )


@dataclass(frozen=True, slots=True, eq=False)
class TokenColumns:
    """An entry for each scored token.

    Attributes:
        own: natural-log probability by the model, float64; `reference` by the reference, None without one.
        kl: KL(reference || model) of the whole distribution; 0 without a reference.
        same_top: whether both find the same token likeliest.
    """

    own: NDArray[np.float64]
    reference: NDArray[np.float64] | None
    kl: NDArray[np.float64]
    same_top: NDArray[np.bool_]

    def only(self, part: NDArray[np.bool_]) -> "TokenColumns":
        """The tokens that a mask names."""
        other = None if self.reference is None else self.reference[part]
        return TokenColumns(self.own[part], other, self.kl[part], self.same_top[part])


_Columns = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]


def _window_columns(
    executor: ForwardPass, reference: ForwardPass | None, window: Tokens, first: int | None
) -> _Columns:
    """Of each scored token: log-probability by both, KL divergence, same top token."""
    first = len(window) // 2 if first is None else first
    own = iterate_logits(executor, window[:-1], first, logit_rows=_LOGIT_ROWS)
    other = own if reference is None else iterate_logits(reference, window[:-1], first, logit_rows=_LOGIT_ROWS)
    pieces: list[_Columns] = []
    pairs = ((step, step) for step in own) if reference is None else zip(own, other, strict=True)
    for (positions, logits), (_, expected_logits) in pairs:
        targets = window[positions.start + 1 : positions.stop + 1]
        found = log_softmax(logits)
        expected = found if reference is None else log_softmax(expected_logits)
        rows = np.arange(len(targets))
        pieces.append(
            (
                found[rows, targets],
                expected[rows, targets],
                (np.exp(expected) * (expected - found)).sum(axis=-1),
                found.argmax(axis=-1) == expected.argmax(axis=-1),
            )
        )
    own_all, other_all, kl, same = (np.concatenate(parts) for parts in zip(*pieces, strict=True))
    return own_all, other_all, kl, same


def _standard_error(values: NDArray[np.float64]) -> float:
    return float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.inf


def _bytes(model: LoadedModel) -> int:
    return sum(model.weights.info(name).num_bytes for name in model.weights.names())
