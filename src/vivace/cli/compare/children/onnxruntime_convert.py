"""Turns a Hugging Face folder into one for onnxruntime-genai, under that peer's Python: FOLDER GGUF OUT PRECISION."""

import subprocess
import sys
from pathlib import Path

from transformers import AutoTokenizer


def main() -> None:
    """Give the folder the tokenizer of the GGUF file, then let the model builder export it."""
    folder, gguf, out, precision = sys.argv[1:]
    path = Path(gguf)
    AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name).save_pretrained(folder)
    command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", folder, "-o", out, "-p", precision]
    subprocess.run([*command, "-e", "cpu", "-c", str(path.parent / "onnx-cache")], check=True)
