"""vivace as a peer of itself: the engine step by step, as `vivace bench raw` drives it, for any number of streams."""

import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vivace.engine.core import Engine, always
from vivace.execute.native import NativeExecutor, default_kv_format
from vivace.execute.score import iterate_logits
from vivace.files.open import open_model
from vivace.graph.build import build_graph
from vivace.schedule.config import SchedulerConfig
from vivace.types.events import FailEvent, TokenEvent
from vivace.types.request import GenerationRequest, SamplingParams, StopParams
from vivace.types.run_settings import FILE_WEIGHTS
from vivace.types.step import BLOCK_SIZE

from .protocol import Streams, serve

MAX_BATCH_TOKENS = 512  # EngineConfig's default
PROMPTS_FIRST_S = 60.0
"""Between two tokens of a stream: so long that prompts are read at once, as other engines' rows do. With the default of
0.1 s streams that began early go on while the rest is read, and the last ones write alone."""


class VivaceEngine:
    """The engine as the front ends use it, without thread and text.

    Options: model (path), threads, shapes ([streams, tokens of each]), activation_bits,
    weight_format, isa (kernel table to force).
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        loaded = open_model(Path(options["model"]))
        bits, weight_format = options["activation_bits"], options.get("weight_format", FILE_WEIGHTS)
        self._executor = NativeExecutor(
            build_graph(loaded.spec),
            loaded.weights,
            num_blocks=max(streams * (length // BLOCK_SIZE + 2) for streams, length in options["shapes"]),
            max_rows=MAX_BATCH_TOKENS,
            num_threads=options["threads"],
            activation_bits=bits,
            isa=options.get("isa"),
            kv_format=default_kv_format(bits, weight_format, options.get("isa")),
            weight_format=weight_format,
        )
        config = SchedulerConfig(
            max_batch_tokens=MAX_BATCH_TOKENS, max_sequences=64, prefix_cache=False, inter_token_s=PROMPTS_FIRST_S
        )
        self._engine = Engine(self._executor, config)
        self._number = itertools.count()

    def describe(self) -> dict[str, Any]:
        """The kernel table in use."""
        return {"isa": self._executor.isa, "threads": self._executor.num_threads}

    def generate(self, prompts: Sequence[Sequence[int]], num_tokens: int) -> Streams:
        """See ChildEngine."""
        requests = [
            GenerationRequest(
                request_id=f"{next(self._number)}-{os.getpid()}",
                prompt_ids=tuple(prompt),
                sampling=SamplingParams(temperature=0.0),
                stopping=StopParams(max_tokens=num_tokens, ignore_eos=True),
            )
            for prompt in prompts
        ]
        streams = Streams.start(len(prompts))
        index = {request.request_id: i for i, request in enumerate(requests)}
        for request in requests:
            self._engine.add(request)
        while self._engine.has_work:
            for event in self._engine.step(may_run_ahead=always):
                if isinstance(event, FailEvent):
                    raise event.error
                if isinstance(event, TokenEvent):
                    streams.note(index[event.request_id], event.token_id)
        return streams

    def logits(self, ids: Sequence[int], first: int) -> NDArray[np.float32]:
        """Float32 (len(ids) - first, vocab): logits after the tokens from `first` on."""
        pieces = iterate_logits(self._executor, np.array(ids, dtype=np.int32), first)
        return np.concatenate([logits.copy() for _, logits in pieces])


def main() -> None:
    """Serve."""
    serve(VivaceEngine)
