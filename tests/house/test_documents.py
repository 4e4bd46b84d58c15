"""The documents tell the truth where a machine can check it: links, versions, lengths."""

import re
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
DOCUMENTS = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md")])
LINK = re.compile(r"\]\((?!https?://|#|mailto:)([^)#\s]+)")


def project_version() -> str:
    metadata = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    return str(metadata["project"]["version"])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_relative_links_lead_somewhere(document: Path) -> None:
    links = LINK.findall(document.read_text(encoding="utf-8"))
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_the_newest_changelog_entry_is_this_version() -> None:
    headings = re.findall(r"^## (\S+)", (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0] == project_version()


def test_the_map_stays_short() -> None:
    assert len((REPOSITORY / "ARCHITECTURE.md").read_text(encoding="utf-8").splitlines()) < 120


def test_both_readmes_show_the_same_commands() -> None:
    english, chinese = (
        re.findall(
            r"^    ((?:make|vivace) .*?)(?: +#.*)?$", (REPOSITORY / name).read_text(encoding="utf-8"), re.MULTILINE
        )
        for name in ("README.md", "README.zh.md")
    )
    assert english == chinese
    assert len(english) >= 2


def test_the_map_names_only_files_that_exist() -> None:
    text = (REPOSITORY / "ARCHITECTURE.md").read_text(encoding="utf-8")
    roots = (REPOSITORY, REPOSITORY / "src" / "vivace", REPOSITORY / "native")
    named = re.findall(r"[\w./]+/[\w.]+\.(?:py|cpp|h|inc|toml)\b", text)
    assert [path for path in named if not any((root / path).exists() for root in roots)] == []
    assert len(named) > 10


def test_the_map_names_every_room() -> None:
    text = (REPOSITORY / "ARCHITECTURE.md").read_text(encoding="utf-8")
    rooms = [path.parent.name for path in (REPOSITORY / "src" / "vivace").glob("*/__init__.py")]
    assert [room for room in sorted(rooms) if f"| `{room}` |" not in text] == []
