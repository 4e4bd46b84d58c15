"""vLLM's CPU build through its own engine loop: continuous batching, greedy, tokens by id."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from .protocol import Streams, serve


class VllmEngine:
    """The model in bfloat16.

    Options: model (a Hugging Face folder), threads, shapes ([streams, tokens of each]).
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
        os.environ["OMP_NUM_THREADS"] = str(options["threads"])
        from vllm import EngineArgs, LLMEngine

        longest = max(length for _, length in options["shapes"])
        self._engine = LLMEngine.from_engine_args(
            EngineArgs(
                model=options["model"],
                dtype="bfloat16",
                max_model_len=longest + 16,
                max_num_seqs=max(streams for streams, _ in options["shapes"]),
                enable_prefix_caching=False,
                skip_tokenizer_init=True,
            )
        )
        self._number = 0

    def describe(self) -> dict[str, Any]:
        """Version."""
        import vllm

        return {"version": vllm.__version__}

    def generate(self, prompts: Sequence[Sequence[int]], num_tokens: int) -> Streams:
        """See ChildEngine."""
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt

        params = SamplingParams(temperature=0.0, max_tokens=num_tokens, ignore_eos=True, detokenize=False)
        streams, index = Streams.start(len(prompts)), {}
        for stream, prompt in enumerate(prompts):
            self._number += 1
            index[str(self._number)] = stream
            self._engine.add_request(str(self._number), TokensPrompt(prompt_token_ids=list(prompt)), params)
        while self._engine.has_unfinished_requests():
            for output in self._engine.step():
                stream = index[output.request_id]
                for token in output.outputs[0].token_ids[len(streams.ids[stream]) :]:
                    streams.note(stream, int(token))
        return streams


def main() -> None:
    """Serve."""
    serve(VllmEngine)
