"""The windows a recipe calibrates on: drawn from files, or written by the model itself when none are given."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from vivace.compress.calibration_text import LabelledText, draw_windows, read_texts
from vivace.compress.progress import Report
from vivace.compress.recipe import CalibrationSettings
from vivace.compress.self_text import blocks_needed, write_samples
from vivace.compress.server_logs import Redact, read_logs
from vivace.compress.text_kinds import relabelled
from vivace.execute.native import NativeExecutor
from vivace.execute.score import Tokens
from vivace.files.open import LoadedModel
from vivace.graph.build import build_graph
from vivace.text.tokenizer import Tokenizer
from vivace.types.errors import ConfigError


def _as_it_is(text: str) -> str:
    return text


@dataclass(frozen=True, slots=True)
class CalibrationText:
    """Where calibration text comes from: files, folders and logs with an optional mix, or (no paths) the model itself.

    Attributes:
        paths: files and folders.
        mix: share of each label.
        by_kind: shares are of kinds of text (`text_kinds.py`), not of labels.
        logs: a server's request logs; their callers agreed.
        redact: takes out of each text of the logs what must not stay.
    """

    paths: tuple[Path, ...] = ()
    mix: Mapping[str, float] | None = None
    by_kind: bool = False
    logs: tuple[Path, ...] = ()
    redact: Redact = _as_it_is

    def read(self) -> list[LabelledText]:
        """All texts; [] when there are no paths.

        Raises:
            ConfigError: a file cannot be read, or holds no text.
        """
        texts = read_texts(self.paths) if self.paths else []
        return texts + (read_logs(self.logs, self.redact) if self.logs else [])


def draw_samples(
    source: LoadedModel,
    tokenizer: Tokenizer | None,
    settings: CalibrationSettings,
    text: CalibrationText | None,
    report: Report,
) -> list[Tokens]:
    """The windows that a recipe calibrates on.

    Raises:
        ConfigError: there is too little text, a label is missing, or the model has no vocabulary to read text with.
    """
    if text is not None and (text.paths or text.logs):
        if tokenizer is None:
            raise ConfigError(f"{source.path} has no vocabulary to read text with.", "Calibrate without files.")
        texts = text.read()
        return draw_windows(relabelled(texts) if text.by_kind else texts, tokenizer, settings, text.mix)
    return own_text(source, tokenizer, settings, report)


def own_text(
    source: LoadedModel, tokenizer: Tokenizer | None, settings: CalibrationSettings, report: Report
) -> list[Tokens]:
    """Windows that the model writes itself."""
    executor, settings = writer(source, settings)
    bos = tokenizer.bos_id if tokenizer is not None else None
    return write_samples(executor, settings, bos, report)


def writer(source: LoadedModel, settings: CalibrationSettings) -> tuple[NativeExecutor, CalibrationSettings]:
    """What writes a model's own text, and windows no longer than its context."""
    settings = replace(settings, tokens=min(settings.tokens, source.spec.context_length))
    blocks = blocks_needed(settings)
    executor = NativeExecutor(build_graph(source.spec), source.weights, num_blocks=blocks, max_rows=settings.samples)
    return executor, settings
