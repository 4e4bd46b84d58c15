"""The size gate catches planted violations and passes honest code."""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
GATE = REPOSITORY / "tools" / "check_sizes.py"


def run_gate(root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(GATE), str(root)], capture_output=True, text=True, check=False)


def plant(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text, encoding="utf-8")


def python_function(num_lines: int) -> str:
    return "def long():\n" + "    x = 1\n" * (num_lines - 1)


def cpp_function(num_lines: int, head: str = "int long_one(int a)") -> str:
    return f"{head} {{\n" + "  a += 1;\n" * (num_lines - 2) + "}\n"


def config(num_fields: int, decorator: str = "@dataclass(frozen=True, slots=True)") -> str:
    fields = "".join(f"    field_{index}: int = 0\n" for index in range(num_fields))
    return f"{decorator}\nclass EngineConfig:\n    KIND: ClassVar[str] = 'x'\n{fields}"


VIOLATIONS = {
    "a file of 401 lines": ("src/vivace/a.py", "x = 1\n" * 401, "401 lines"),
    "a page of 401 lines": ("src/vivace/server/page/chat.css", "a {}\n" * 401, "401 lines"),
    "a test file of 601 lines": ("tests/test_a.py", "x = 1\n" * 601, "601 lines"),
    "a Python function of 61 lines": ("src/vivace/a.py", python_function(61), "function long has 61"),
    "a C++ function of 61 lines": ("native/a.cpp", cpp_function(61), "function long_one has 61"),
    "a C++ method of 61 lines": (
        "native/a.h",
        "namespace v {\nstruct S {\n" + cpp_function(61, "  void S::run(int a) const noexcept") + "};\n}\n",
        "function S::run has 61",
    ),
    "a JavaScript function of 61 lines": ("src/vivace/a.js", cpp_function(61, "async function draw(a)"), "draw has 61"),
    "a module named utils": ("src/vivace/utils.py", "", "'utils'"),
    "a header named helpers": ("native/helpers.h", "", "'helpers'"),
    "a folder named common": ("src/vivace/common/a.py", "", "'common'"),
    "a config of 13 fields": ("src/vivace/a.py", config(13), "13 fields"),
    "a config that is not frozen": ("src/vivace/a.py", config(1, "@dataclass"), "not frozen"),
}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_gate_catches(name: str, tmp_path: Path) -> None:
    path, text, expected = VIOLATIONS[name]
    plant(tmp_path, path, text)
    result = run_gate(tmp_path)
    assert result.returncode == 1
    assert path in result.stdout
    assert expected in result.stdout


HONEST = {
    "a file at the limit": ("src/vivace/a.py", "x = 1\n" * 400),
    "a test file at the limit": ("tests/test_a.py", "x = 1\n" * 600),
    "a Python function at the limit": ("src/vivace/a.py", python_function(60)),
    "a C++ function at the limit": ("native/a.cpp", cpp_function(60)),
    "a config at the limit": ("src/vivace/a.py", config(12)),
    "many short C++ functions": ("native/a.cpp", "namespace v {\n" + cpp_function(10) * 20 + "}\n"),
    "a long C++ table": ("native/a.cpp", "const int table[] = {\n" + "  1,\n" * 100 + "};\n"),
    "a long C++ class": ("native/a.h", "class A : public B<int> {\n" + "  int f(int a) { return a; }\n" * 100 + "};\n"),
    "braces in literals and comments": (
        "native/a.cpp",
        'int f() {\n  // }{ {\n  const char* s = "{{"; char c = \'{\'; auto r = R"({)";\n}\n' + "int g();\n" * 80,
    ),
    "one brace in two branches": (
        "native/a.cpp",
        "#if A\nint f(int a) {\n#else\nint f(long a) {\n#endif\n  return 1;\n}\n" + "int g();\n" * 80,
    ),
    "short JavaScript functions": (
        "src/vivace/a.js",
        "class A {\n" + '  run(a) {\n    return `{${a}` + "}";\n  }\n' * 40 + "}\n",
    ),
}


@pytest.mark.parametrize("name", HONEST)
def test_gate_passes(name: str, tmp_path: Path) -> None:
    plant(tmp_path, *HONEST[name])
    result = run_gate(tmp_path)
    assert result.returncode == 0, result.stdout


def test_gate_passes_this_repository() -> None:
    result = run_gate(REPOSITORY)
    assert result.returncode == 0, result.stdout
