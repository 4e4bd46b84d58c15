"""How near a row's next-token distributions are to the unquantised arithmetic of the shipped file, beside its speed.

A speed that was bought with quality should be seen to be: every row that can give logits reads the same windows of a
text, and the oracle (numpy, float32, weights as the file has them) says what they should be.
"""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from vivace.cli.compare.child_process import PeerProcess
from vivace.execute.reference import ReferenceExecutor
from vivace.execute.score import Tokens, cut_windows, iterate_logits, log_softmax
from vivace.files.open import open_model
from vivace.graph.build import build_graph
from vivace.text.build import build_tokenizer
from vivace.types.errors import ConfigError
from vivace.types.step import BLOCK_SIZE

WINDOW = 512
NUM_WINDOWS = 4


@dataclass(frozen=True, slots=True)
class RowQuality:
    """Against the oracle over `num_positions` positions.

    Args:
        num_positions: those of the second half of each window.
        mean_kl: KL(oracle || row), in nats.
        same_top: how often both find the same token likeliest.
        perplexity_ratio: of the row over the oracle, on the same tokens.
    """

    num_positions: int
    mean_kl: float
    same_top: float
    perplexity_ratio: float


class QualityCheck:
    """The oracle's answers on the windows of a text, kept as log-probabilities.

    Args:
        model: the file as it was shipped.
        text: UTF-8, such as wiki.test.raw.

    Raises:
        ConfigError: the text is too short or cannot be read.
        VivaceError: the model cannot be loaded.
    """

    def __init__(self, model: Path, text: Path) -> None:
        self._windows = _read_windows(model, text)
        loaded = open_model(model)
        executor = ReferenceExecutor(build_graph(loaded.spec), loaded.weights, num_blocks=WINDOW // BLOCK_SIZE)
        try:
            self._expected = [_second_half(executor, window) for window in self._windows]
        finally:
            executor.close()

    def of(self, row: PeerProcess) -> RowQuality | None:
        """A row's figures; None where the engine gives no logits.

        Raises:
            PeerError: the engine failed.
        """
        with TemporaryDirectory() as folder:
            file = Path(folder) / "logits.npy"
            if not row.write_logits([window.tolist() for window in self._windows], file):
                return None
            found = np.load(file, mmap_mode="r")
            return self._compared(found)

    def _compared(self, found: NDArray[np.float32]) -> RowQuality:
        """Args: float32 (windows x WINDOW / 2, vocab)."""
        kl, same, nll_ours, nll_theirs = [], [], [], []
        half = WINDOW // 2
        for number, (window, expected) in enumerate(zip(self._windows, self._expected, strict=True)):
            theirs = log_softmax(np.asarray(found[number * half : (number + 1) * half, : expected.shape[1]]))
            kl.append((np.exp(expected) * (expected - theirs)).sum(axis=-1))
            same.append(expected.argmax(axis=-1) == theirs.argmax(axis=-1))
            targets, rows = window[half + 1 :], np.arange(half - 1)
            nll_ours.append(-expected[rows, targets])
            nll_theirs.append(-theirs[rows, targets])
        difference = np.concatenate(nll_theirs).mean() - np.concatenate(nll_ours).mean()
        all_kl = np.concatenate(kl)
        return RowQuality(
            len(all_kl), float(all_kl.mean()), float(np.concatenate(same).mean()), float(np.exp(difference))
        )


def _read_windows(model: Path, text: Path) -> list[Tokens]:
    loaded = open_model(model)
    try:
        if loaded.vocabulary is None:
            raise ConfigError(f"{model} has no tokenizer.", "Use a model file that comes with one.")
        tokenizer = build_tokenizer(loaded.vocabulary)
        ids = tokenizer.encode(text.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{text} cannot be read: {error}.", "Give --quality a UTF-8 text.") from None
    finally:
        loaded.close()
    return cut_windows(ids, WINDOW, NUM_WINDOWS, tokenizer.bos_id if tokenizer.adds_bos else None)


def _second_half(executor: ReferenceExecutor, window: Tokens) -> NDArray[np.float32]:
    pieces = [log_softmax(logits) for _, logits in iterate_logits(executor, window, WINDOW // 2)]
    return np.concatenate(pieces).astype(np.float32)
