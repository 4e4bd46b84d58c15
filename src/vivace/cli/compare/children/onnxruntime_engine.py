"""ONNX Runtime through onnxruntime-genai: prompts of equal length as one batch, greedy."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnxruntime_genai

from .protocol import Streams, serve


class OnnxRuntimeEngine:
    """One exported model.

    Options: model (a folder of its model builder), threads.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._folder = Path(options["model"])
        threads = {"intra_op_num_threads": options["threads"], "inter_op_num_threads": 1}
        config = onnxruntime_genai.Config(str(self._folder))
        config.overlay(json.dumps({"model": {"decoder": {"session_options": threads}}}))
        self._model = onnxruntime_genai.Model(config)

    def describe(self) -> dict[str, Any]:
        """Version."""
        return {"version": onnxruntime_genai.__version__}

    def generate(self, prompts: Sequence[Sequence[int]], num_tokens: int) -> Streams:
        """See ChildEngine."""
        parameters = onnxruntime_genai.GeneratorParams(self._model)
        length = len(prompts[0]) + num_tokens
        parameters.set_search_options(do_sample=False, max_length=length, min_length=length, batch_size=len(prompts))
        streams = Streams.start(len(prompts))
        generator = onnxruntime_genai.Generator(self._model, parameters)
        generator.append_tokens([list(prompt) for prompt in prompts])
        for _ in range(num_tokens):
            generator.generate_next_token()
            for stream, token in enumerate(generator.get_next_tokens()):
                streams.note(stream, int(token))
        return streams


def main() -> None:
    """Serve."""
    serve(OnnxRuntimeEngine)
