"""Make the expected tokens under tests/golden with Hugging Face transformers in FP32.

    python tools/make_golden_tokens.py smollm2-135m gemma3-270m tiny rope --models FOLDER [--out tests/golden]

Needs torch, transformers, gguf and safetensors (none of which the tests need); real models also need xllamacpp, which
tokenises the prompts and whose llama.cpp checks the tokens on a float32 copy of the file (on the quantised file it
rounds activations to 8 bits and leaves FP32's path at gaps of a few tenths). FOLDER holds the GGUF files of the
catalogue. llama.cpp stops at the end of an answer; the expected tokens go on.
Prints the smallest gap between the best and the second-best logit of each prompt: where it is under NEAR_TIE, two sound
FP32 implementations may choose differently, and the step is recorded under `near_ties`.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from golden_gguf import LlamaCpp, load_gguf, write_float32_copy  # noqa: E402
from golden_prompts import prompts  # noqa: E402

from factories import hf_checkpoints  # noqa: E402

NEAR_TIE = 1e-4
FILES = {"smollm2-135m": "SmolLM2-135M-Instruct.Q4_1.gguf", "gemma3-270m": "gemma-3-270m-q4_k_m.gguf"}


@dataclass
class Continuation:
    """Greedy tokens of one prompt, the top-2 gap of each step, and the runner-up of near ties by step."""

    ids: list[int] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    runners_up: list[int] = field(default_factory=list)
    first_logits: list[float] = field(default_factory=list)

    def as_json(self, prompt: list[int], **more: object) -> dict[str, object]:
        """The prompt's entry in a golden file."""
        ties = {str(i): self.runners_up[i] for i, gap in enumerate(self.gaps) if gap < NEAR_TIE}
        return {
            **more,
            "prompt_ids": prompt,
            "expected_ids": self.ids,
            "smallest_gap": min(self.gaps),
            "near_ties": ties,
        }


@torch.inference_mode()
def greedy(model: Any, prompt: list[int], num_tokens: int) -> Continuation:
    """Most likely tokens one after another, end-of-sequence tokens like any other."""
    result = Continuation()
    output = model(torch.tensor([prompt]), use_cache=True)
    for _ in range(num_tokens):
        logits = output.logits[0, -1]
        if not result.ids:
            result.first_logits = logits[:8].tolist()
        top = torch.topk(logits, 2)
        result.ids.append(int(top.indices[0]))
        result.runners_up.append(int(top.indices[1]))
        result.gaps.append(float(top.values[0] - top.values[1]))
        output = model(torch.tensor([result.ids[-1:]]), past_key_values=output.past_key_values, use_cache=True)
    return result


def make_real(name: str, models: Path, num_tokens: int) -> dict[str, object]:
    """Golden tokens of a model of the catalogue, checked against llama.cpp on a float32 copy of the file."""
    path = models / FILES[name]
    model = load_gguf(path)
    entries = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "float32.gguf"
        write_float32_copy(path, copy)
        llama_cpp = LlamaCpp(copy)
        for text in prompts(name):
            ids = llama_cpp.tokenize(text)
            found = greedy(model, ids, num_tokens)
            other = llama_cpp.greedy(ids, num_tokens)
            agreed = next((i for i, token in enumerate(other) if token != found.ids[i]), len(other))
            print(f"{text[:40]!r}: smallest gap {min(found.gaps):.5f}; llama.cpp: {agreed} of {len(other)}", flush=True)
            entries.append(found.as_json(ids, text=text, equal_in_llama_cpp=agreed))
    return {"file": FILES[name], "prompts": entries}


def make_tiny(num_tokens: int) -> dict[str, object]:
    """Golden tokens of the random-weight checkpoints."""
    cases = {}
    for case in hf_checkpoints.CONFIGS:
        with tempfile.TemporaryDirectory() as folder:
            path = hf_checkpoints.write_checkpoint(Path(folder), case)
            model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()
        entries = []
        for ids in hf_checkpoints.prompts(case):
            found = greedy(model, ids, num_tokens)
            entries.append(found.as_json(ids, first_logits=found.first_logits))
            print(f"{case}: smallest gap {min(found.gaps):.5f}, {len(set(found.ids))} different tokens", flush=True)
        cases[case] = entries
    return {"cases": cases}


ROPE_CASES: dict[str, dict[str, Any]] = {
    "plain": {"rope_type": "default", "rope_theta": 10000.0},
    "linear": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
    "llama3": {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "yarn": {
        "rope_type": "yarn",
        "rope_theta": 1000000.0,
        "factor": 4.0,
        "original_max_position_embeddings": 32768,
    },
    "yarn-set": {
        "rope_type": "yarn",
        "rope_theta": 10000.0,
        "factor": 16.0,
        "original_max_position_embeddings": 4096,
        "beta_fast": 24.0,
        "beta_slow": 2.0,
        "attention_factor": 1.25,
    },
}


def make_rope() -> dict[str, object]:
    """Inverse frequencies and attention factors of transformers for heads of 64 lanes."""
    cases = {}
    for case, parameters in ROPE_CASES.items():
        config = LlamaConfig(hidden_size=256, num_attention_heads=4, max_position_embeddings=131072)
        config.rope_parameters = dict(parameters)
        if case == "plain":
            frequencies, factor = plain_frequencies(config)
        else:
            frequencies, factor = ROPE_INIT_FUNCTIONS[parameters["rope_type"]](config)
        cases[case] = {"parameters": parameters, "inverse_frequencies": frequencies.tolist(), "factor": factor}
    return {"cases": cases}


def plain_frequencies(config: LlamaConfig) -> tuple[torch.Tensor, float]:
    """The unscaled frequencies, which transformers computes in each model's rotary embedding."""
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    embedding = LlamaRotaryEmbedding(config)
    return embedding.inv_freq, embedding.attention_scaling


def main() -> None:
    """Make the files asked for."""
    parser = argparse.ArgumentParser(description="Make golden tokens with Hugging Face transformers.")
    parser.add_argument("what", nargs="+", choices=[*FILES, "tiny", "rope"])
    parser.add_argument("--models", type=Path, default=Path(), help="folder with the GGUF files")
    parser.add_argument("--out", type=Path, default=ROOT / "tests" / "golden")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for what in options.what:
        if what == "tiny":
            content = make_tiny(options.tokens)
        elif what == "rope":
            content = make_rope()
        else:
            content = make_real(what, options.models, options.tokens)
        maker = f"tools/make_golden_tokens.py {what}, transformers {transformers.__version__}"
        text = json.dumps({"made_by": maker, **content}, ensure_ascii=False, separators=(",", ":"))
        (options.out / f"{what}.json").write_text(
            text.replace('{"text"', '\n{"text"').replace('{"prompt_ids"', '\n{"prompt_ids"') + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
