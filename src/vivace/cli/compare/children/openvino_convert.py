"""Turns a Hugging Face folder into an OpenVINO one, under the Python of that peer: FOLDER GGUF OUT WEIGHT-FORMAT."""

import subprocess
import sys
from pathlib import Path

from transformers import AutoTokenizer

_GROUPS = {"int4": ["--group-size", "64", "--sym"], "int8": []}


def main() -> None:
    """Give the folder the tokenizer of the GGUF file, then let optimum export it."""
    folder, gguf, out, weight_format = sys.argv[1:]
    path = Path(gguf)
    AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name).save_pretrained(folder)
    command = [sys.executable, "-m", "optimum.commands.optimum_cli", "export", "openvino", "-m", folder]
    command += ["--task", "text-generation-with-past", "--weight-format", weight_format, *_GROUPS[weight_format], out]
    subprocess.run(command, check=True)
