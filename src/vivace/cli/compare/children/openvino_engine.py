"""OpenVINO GenAI's continuous batching pipeline, asked with token ids, step by step."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import openvino
import openvino_genai

from .protocol import Streams, serve


class OpenVinoEngine:
    """One pipeline for all shapes.

    Options: model (folder), threads, shapes ([streams, tokens of each]).
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.enable_prefix_caching = False
        scheduler.max_num_seqs = max(streams for streams, _ in options["shapes"])
        scheduler.num_kv_blocks = max(streams * (length // 16 + 2) for streams, length in options["shapes"])
        self._pipeline = openvino_genai.ContinuousBatchingPipeline(
            options["model"], scheduler, "CPU", {"INFERENCE_NUM_THREADS": options["threads"]}
        )
        self._number = 0

    def describe(self) -> dict[str, Any]:
        """Version."""
        return {"version": openvino_genai.__version__, "openvino": openvino.__version__}

    def generate(self, prompts: Sequence[Sequence[int]], num_tokens: int) -> Streams:
        """See ChildEngine."""
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = num_tokens
        config.ignore_eos = True
        config.do_sample = False
        streams = Streams.start(len(prompts))
        handles = []
        for prompt in prompts:
            self._number += 1
            ids = openvino.Tensor(np.array([list(prompt)], dtype=np.int64))
            handles.append(self._pipeline.add_request(self._number, ids, config))
        while self._pipeline.has_non_finished_requests():
            self._pipeline.step()
            for stream, handle in enumerate(handles):
                if handle.can_read():
                    for output in handle.read().values():
                        for token in output.generated_ids:
                            streams.note(stream, token)
        return streams


def main() -> None:
    """Serve."""
    serve(OpenVinoEngine)
