"""Hugging Face transformers on PyTorch: prompts of equal length as one batch, greedy, with its own cache."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import transformers

from .protocol import Streams, serve


class TransformersEngine:
    """The model in bfloat16.

    Options: model (a Hugging Face folder), threads.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        torch.set_num_threads(options["threads"])
        self._model = transformers.AutoModelForCausalLM.from_pretrained(options["model"], dtype=torch.bfloat16)
        self._model.eval()

    def describe(self) -> dict[str, Any]:
        """Versions."""
        return {"version": transformers.__version__, "torch": torch.__version__}

    def generate(self, prompts: Sequence[Sequence[int]], num_tokens: int) -> Streams:
        """See ChildEngine."""
        streams = Streams.start(len(prompts))
        ids, cache = torch.tensor([list(prompt) for prompt in prompts]), None
        with torch.inference_mode():
            for _ in range(num_tokens):
                said = self._model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
                cache = said.past_key_values
                ids = said.logits[:, -1].argmax(-1, keepdim=True)
                for stream, token in enumerate(ids[:, 0].tolist()):
                    streams.note(stream, token)
        return streams

    def logits(self, ids: Sequence[int], first: int) -> Any:
        """Float32 (len(ids) - first, vocab): logits after the tokens from `first` on."""
        with torch.inference_mode():
            return self._model(input_ids=torch.tensor([list(ids)])).logits[0, first:].float().numpy()


def main() -> None:
    """Serve."""
    serve(TransformersEngine)
