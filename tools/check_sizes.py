"""The size gate: small files, small functions, small configs, and no drawer modules.

Walks the source folders of a tree and prints one line a violation. It reads text only: nothing is imported or built.

    python tools/check_sizes.py [ROOT]      # exit status 1 when something is too large
"""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from brace_functions import brace_functions

FOLDERS = ("src", "native", "tests", "tools", "bench")
SUFFIXES = frozenset({".py", ".cpp", ".cc", ".h", ".hpp", ".inc", ".js", ".mjs", ".ts", ".css", ".html"})
BRACE_SUFFIXES = frozenset({".cpp", ".cc", ".h", ".hpp", ".inc", ".js", ".mjs", ".ts"})
DRAWER_NAMES = frozenset({"utils", "util", "common", "helpers", "helper", "misc"})
SKIPPED_FOLDERS = frozenset({"__pycache__", "node_modules", "build", "vendor"})

MAX_FILE_LINES = 400
MAX_TEST_FILE_LINES = 600
MAX_FUNCTION_LINES = 60
MAX_CONFIG_FIELDS = 12


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken limit; `line` counts from 1."""

    path: Path
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.what}"


def source_files(root: Path) -> Iterator[Path]:
    """Yield the files under the gate, relative to `root`, in a stable order."""
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            relative = path.relative_to(root)
            if path.suffix in SUFFIXES and path.is_file() and not SKIPPED_FOLDERS.intersection(relative.parts):
                yield relative


def check_tree(root: Path) -> list[Violation]:
    """Every violation in the tree at `root`."""
    return [violation for path in source_files(root) for violation in check_file(root, path)]


def check_file(root: Path, path: Path) -> Iterator[Violation]:
    """Violations of one file; `path` is relative to `root`."""
    text = (root / path).read_text(encoding="utf-8")
    yield from _check_name(path)
    yield from _check_length(path, text)
    if path.suffix == ".py":
        yield from _check_python(path, text)
    elif path.suffix in BRACE_SUFFIXES:
        for function in brace_functions(text, path.suffix):
            yield from _check_function(path, function.line, function.name, function.num_lines)


def _check_name(path: Path) -> Iterator[Violation]:
    drawers = DRAWER_NAMES.intersection({*path.parent.parts, path.stem})
    for name in sorted(drawers):
        yield Violation(path, 1, f"nothing may be named {name!r}: name the module after what it holds")


def _check_length(path: Path, text: str) -> Iterator[Violation]:
    limit = MAX_TEST_FILE_LINES if "tests" in path.parts else MAX_FILE_LINES
    num_lines = len(text.splitlines())
    if num_lines > limit:
        yield Violation(path, limit + 1, f"file has {num_lines} lines, the limit is {limit}")


def _check_function(path: Path, line: int, name: str, num_lines: int) -> Iterator[Violation]:
    if num_lines > MAX_FUNCTION_LINES:
        yield Violation(path, line, f"function {name} has {num_lines} lines, the limit is {MAX_FUNCTION_LINES}")


def _check_python(path: Path, text: str) -> Iterator[Violation]:
    for node in ast.walk(ast.parse(text, filename=str(path))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            num_lines = (node.end_lineno or node.lineno) - node.lineno + 1
            yield from _check_function(path, node.lineno, node.name, num_lines)
        elif isinstance(node, ast.ClassDef) and node.name.endswith("Config"):
            yield from _check_config(path, node)


def _check_config(path: Path, node: ast.ClassDef) -> Iterator[Violation]:
    decorators = [decorator for decorator in node.decorator_list if "dataclass" in ast.unparse(decorator)]
    if not decorators:
        return
    if not any("frozen=True" in ast.unparse(decorator) for decorator in decorators):
        yield Violation(path, node.lineno, f"config {node.name} is not frozen")
    num_fields = sum(isinstance(child, ast.AnnAssign) and not _is_class_variable(child) for child in node.body)
    if num_fields > MAX_CONFIG_FIELDS:
        yield Violation(
            path, node.lineno, f"config {node.name} has {num_fields} fields, the limit is {MAX_CONFIG_FIELDS}"
        )


def _is_class_variable(field: ast.AnnAssign) -> bool:
    return "ClassVar" in ast.unparse(field.annotation)


def main(arguments: list[str]) -> int:
    """Check the tree named on the command line (default: the current folder)."""
    root = Path(arguments[0]) if arguments else Path.cwd()
    violations = check_tree(root)
    for violation in violations:
        print(violation)
    if not violations:
        print(f"sizes: {sum(1 for _ in source_files(root))} files within the limits")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
