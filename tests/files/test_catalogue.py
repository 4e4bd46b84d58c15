"""The catalogue by name: cards, words that mean models, and what is said about words that do not."""

from pathlib import Path

import pytest

from factories.gguf_files import write_gguf
from factories.hf_folders import write_hf_folder
from vivace.files import catalogue
from vivace.files.catalogue_rows import ROWS, CatalogueRow
from vivace.types.errors import CatalogueError, MissingExtraError, ModelFileError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VIVACE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _pretend_pulled(row: CatalogueRow, cache: Path) -> Path:
    path = row.path_in(cache)
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        file.truncate(row.num_bytes)  # a hole: takes no room
    return path


def test_rows_add_up() -> None:
    for name, row in ROWS.items():
        assert row.name == name and row.num_bytes == sum(piece.num_bytes for piece in row.pieces)
        assert len(row.sha256) == 64 and row.licence
    assert [card.name for card in catalogue.list_models() if card.default] == ["smollm2-135m"]


def test_a_pulled_model_is_found_without_a_network(cache: Path) -> None:
    assert catalogue.show("smollm2-135m").path is None and catalogue.pulled_path("smollm2-135m") is None
    path = _pretend_pulled(ROWS["smollm2-135m"], cache)
    assert catalogue.show("smollm2-135m").path == path
    assert catalogue.resolve("smollm2-135m") == catalogue.pull("smollm2-135m") == path


def test_half_a_model_does_not_count_as_pulled(cache: Path) -> None:
    path = _pretend_pulled(ROWS["smollm2-135m"], cache)
    with path.open("rb+") as file:
        file.truncate(1000)
    assert catalogue.pulled_path("smollm2-135m") is None


def test_removing_frees_what_was_pulled(cache: Path) -> None:
    row = ROWS["gemma3-270m"]
    path = _pretend_pulled(row, cache)
    path.with_name(f"{path.name}.part").write_bytes(b"half")
    (path.parent / ".lock").touch()
    assert catalogue.remove("gemma3-270m") == row.num_bytes + 4
    assert [file.name for file in path.parent.iterdir()] == [".lock"]  # somebody may be waiting at it
    assert catalogue.remove("gemma3-270m") == 0
    with pytest.raises(CatalogueError, match="no model 'gemma'"):
        catalogue.remove("gemma")


def test_paths_mean_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_gguf(tmp_path / "model.gguf")
    assert catalogue.resolve(str(tmp_path / "model.gguf")) == tmp_path / "model.gguf"
    assert catalogue.resolve(str(tmp_path)) == tmp_path
    monkeypatch.setenv("HOME", str(tmp_path))
    assert catalogue.resolve("~/model.gguf") == tmp_path / "model.gguf"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("smollm2", "Did you mean smollm2-135m"),
        ("smollm2-135M", "Did you mean smollm2-135m"),
        ("what", "Known are smollm2-135m, gemma3-270m, paths"),
        ("", "There is no model ''"),
        ("./nothing.gguf", "nothing.gguf does not exist"),
        ("nothing.gguf", "nothing.gguf does not exist"),
        ("/no/such/folder", "does not exist"),
    ],
)
def test_a_word_that_means_nothing_is_answered_in_one_line(word: str, message: str) -> None:
    with pytest.raises(CatalogueError, match=message.replace(".", r"\.")) as caught:
        catalogue.resolve(word)
    assert "\n" not in str(caught.value)


def test_files_and_folders_have_cards_too(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", metadata={"general.license": "mit"})
    card = catalogue.show(str(tmp_path / "tiny.gguf"))
    assert (card.name, card.licence, card.path) == ("tiny", "mit", tmp_path / "tiny.gguf")
    assert card.num_bytes == (tmp_path / "tiny.gguf").stat().st_size and len(card.sha256 or "") == 64
    assert card.chat_template is not None and "<|assistant|>" in card.chat_template
    write_hf_folder(tmp_path / "folder")
    card = catalogue.show(str(tmp_path / "folder"))
    assert (card.name, card.sha256, card.licence) == ("folder", None, None) and card.num_bytes > 100_000
    (tmp_path / "broken.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelFileError):
        catalogue.show(str(tmp_path / "broken.gguf"))


def test_a_missing_extra_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub.errors", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'vivace\[hub\]'"):
        catalogue.resolve("owner/name")
