"""llama.cpp through the C API that llama-cpp-python binds: no Python between the tokens but one argmax.

Prompts go in batches of llama.cpp's own default size; every stream is a sequence of one context.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import llama_cpp
import numpy as np

from .protocol import Streams, serve

BATCH_TOKENS = 2048  # n_batch of llama.cpp's programs; it cuts batches into n_ubatch = 512 itself


class LlamaCppEngine:
    """One model with a context for each number of streams, made when it is first asked for.

    Options: model (path), threads, shapes ([streams, tokens of each]).
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        llama_cpp.llama_backend_init()
        self._threads = options["threads"]
        self._lengths: dict[int, int] = {}
        for streams, length in options["shapes"]:
            self._lengths[streams] = max(length, self._lengths.get(streams, 0))
        self._model = llama_cpp.llama_model_load_from_file(
            options["model"].encode(), llama_cpp.llama_model_default_params()
        )
        if not self._model:
            raise ValueError(f"llama.cpp cannot load {options['model']}")
        self._vocab_size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))
        self._batch = llama_cpp.llama_batch_init(BATCH_TOKENS, 0, 1)
        self._streams = 0
        self._context: Any = None

    def describe(self) -> dict[str, Any]:
        """Version and the CPU features the build uses."""
        return {"version": llama_cpp.__version__, "system": llama_cpp.llama_print_system_info().decode()}

    def generate(self, prompts: Sequence[Sequence[int]], num_tokens: int) -> Streams:
        """See ChildEngine."""
        self._use_context(len(prompts))
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), False)
        streams = Streams.start(len(prompts))
        rows = [
            (stream, position, token, position + 1 == len(prompt))
            for stream, prompt in enumerate(prompts)
            for position, token in enumerate(prompt)
        ]
        for start in range(0, len(rows), BATCH_TOKENS):
            self._decode(rows[start : start + BATCH_TOKENS], streams)
        for step in range(num_tokens - 1):
            self._decode(
                [(s, len(prompts[s]) + step, streams.ids[s][-1], True) for s in range(len(prompts))],
                streams,
            )
        return streams

    def logits(self, ids: Sequence[int], first: int) -> np.ndarray:
        """Float32 (len(ids) - first, vocab): logits after the tokens from `first` on."""
        self._lengths[1] = max(self._lengths.get(1, 0), len(ids))
        self._streams = 0
        self._use_context(1)
        streams = Streams.start(1)
        self._decode([(0, position, token, position >= first) for position, token in enumerate(ids)], streams)
        rows = [llama_cpp.llama_get_logits_ith(self._context, i) for i in range(first, len(ids))]
        return np.stack([np.ctypeslib.as_array(row, (self._vocab_size,)).copy() for row in rows])

    def _use_context(self, num_streams: int) -> None:
        if num_streams == self._streams:
            return
        if self._context is not None:
            llama_cpp.llama_free(self._context)
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = num_streams * self._lengths[num_streams]
        parameters.n_batch = BATCH_TOKENS
        parameters.n_seq_max = num_streams
        parameters.n_threads = parameters.n_threads_batch = self._threads
        parameters.no_perf = True
        self._context = llama_cpp.llama_init_from_model(self._model, parameters)
        if not self._context:
            raise ValueError("llama.cpp cannot make a context")
        self._streams = num_streams

    def _decode(self, rows: Sequence[tuple[int, int, int, bool]], streams: Streams) -> None:
        """One batch of (stream, position, token, wants logits); notes the best token of each row that wants one."""
        batch = self._batch
        batch.n_tokens = len(rows)
        for i, (stream, position, token, wants) in enumerate(rows):
            batch.token[i], batch.pos[i] = token, position
            batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = 1, stream, wants
        status = llama_cpp.llama_decode(self._context, batch)
        if status != 0:
            raise ValueError(f"llama_decode says {status}")
        for i, (stream, _, _, wants) in enumerate(rows):
            if wants:
                logits = llama_cpp.llama_get_logits_ith(self._context, i)
                streams.note(stream, int(np.argmax(np.ctypeslib.as_array(logits, (self._vocab_size,)))))


def main() -> None:
    """Serve."""
    serve(LlamaCppEngine)
