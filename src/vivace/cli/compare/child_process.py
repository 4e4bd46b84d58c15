"""One peer as a child process: started, asked in JSON lines (see `children/protocol.py`), and ended."""

import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vivace.cli.compare.environments import PeerError, child_program, peers_folder, python_of
from vivace.cli.compare.peers import Peer
from vivace.files.cache_folder import make_folder


@dataclass(frozen=True, slots=True)
class Answer:
    """What a child generated: ids (or text, from an engine without ids) and the second of each token, per stream."""

    ids: list[list[int]]
    texts: list[str]
    times: list[list[float]]


class PeerProcess:
    """A running peer. Standard error goes to a log beside the environments.

    Args:
        peer: which engine.
        label: names the log.
        options: for the engine: model, threads, shapes.

    Raises:
        PeerError: it is not installed, or does not load the model.
    """

    def __init__(self, peer: Peer, label: str, options: Mapping[str, Any]) -> None:
        python = python_of(peer)
        make_folder(peers_folder())
        self._log = peers_folder() / f"{label.replace('/', '-').replace(':', '-')}.log"
        started_s = time.perf_counter()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [str(python), "-c", child_program(peer.child)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                encoding="utf-8",
                env={**os.environ, "TOKENIZERS_PARALLELISM": "false"},
            )
        try:
            loaded = self._ask({"do": "load", "options": {**peer.options, **options}})
        except BaseException:
            self.close()
            raise
        self.engine: Mapping[str, Any] = loaded["engine"]
        self.load_s: float = loaded["load_s"]
        self._started_s = started_s

    @property
    def pid(self) -> int:
        """Of the child."""
        return self._process.pid

    def first_answer_s(self, prompt: Sequence[int]) -> float:
        """Seconds from the start of the process to the first token of a first prompt; to be asked first of all."""
        self.generate([prompt], 1)
        return time.perf_counter() - self._started_s

    def generate(self, prompts: Sequence[Sequence[int]], num_tokens: int) -> Answer:
        """Continue prompts together, greedily, past any end of text.

        Raises:
            PeerError: the engine failed.
        """
        said = self._ask({"do": "generate", "prompts": [list(prompt) for prompt in prompts], "num_tokens": num_tokens})
        return Answer(said["ids"], said["texts"], said["times"])

    def write_logits(self, windows: Sequence[Sequence[int]], file: Path) -> bool:
        """Have the logits of the second half of each window written as float32 (positions, vocab), one .npy file.

        Returns:
            False where the engine gives no logits.

        Raises:
            PeerError: the engine failed.
        """
        said = self._ask({"do": "logits", "windows": [list(window) for window in windows], "file": str(file)})
        return bool(said["written"])

    def peak_memory_bytes(self) -> int:
        """The most memory the peer has held so far."""
        peak: int = self._ask({"do": "memory"})["peak_bytes"]
        return peak

    def close(self) -> None:
        """End the process; may be called twice."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise PeerError(f"ended: {self._last_words()}", f"The log is {self._log}.")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise PeerError(answer["error"], f"The log is {self._log}.")
        return answer

    def _last_words(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        return said[-1][:200] if said else "without a word"
