"""Find the functions of C++ and JavaScript sources by counting braces, well enough for a size limit.

Comments, literals and preprocessor lines are blanked first. A brace opens a function when the text before it reads like
a parameter list (or `=>`) and is no control statement, and when the braces around it hold declarations. Everything
inside a C++ function counts to that function; in JavaScript nested functions are reported too.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

CONTROL = re.compile(r"^\s*(?:\}\s*)?(?:else\s+)?(?:if|for|while|switch|catch|else|do|try)\b")
CPP_SCOPE = re.compile(r"\b(?:namespace|class|struct|union|enum)\b[^()]*$|\bextern\s*\"?\s*\"?$")
CPP_PARAMETERS = re.compile(r"\)(?:\s|const|noexcept|override|final|&)*(?:(?:->|:|requires\b)[^;]*)?$")
JS_FUNCTION = re.compile(r"(?:\bfunction\b[^{}]*\)|=>|^[^=]*\))\s*(?::[^{}()]*)?$", re.S)
NAME = re.compile(r"([~\w:]+)\s*\(")
LITERALS = {
    ".js": r"`(?:\\.|[^`\\])*`|",
    ".cpp": r"R\"(?P<mark>[^(\s]*)\((?:.|\n)*?\)(?P=mark)\"|",
}
SHARED_LITERALS = r"//[^\n]*|/\*(?:.|\n)*?\*/|\"(?:\\.|[^\"\\\n])*\"|(?<![0-9A-Fa-f])'(?:\\.|[^'\\\n])*'"
JS_SUFFIXES = frozenset({".js", ".mjs", ".ts"})


@dataclass(frozen=True, slots=True)
class BraceFunction:
    """A function body with its signature: first line (from 1) and length in lines."""

    name: str
    line: int
    num_lines: int


@dataclass(slots=True)
class _Scope:
    start: int
    header: str
    is_function: bool
    holds_declarations: bool


def blank_literals(text: str, suffix: str) -> str:
    """Replace comments, literals, directives and `#else` branches by spaces; line breaks stay where they are."""
    javascript = suffix in JS_SUFFIXES
    pattern = re.compile(LITERALS[".js" if javascript else ".cpp"] + SHARED_LITERALS)
    text = pattern.sub(lambda match: _spaces(match.group()), text)
    return text if javascript else "\n".join(_blank_directives(text.split("\n")))


def _spaces(text: str) -> str:
    return re.sub(r"[^\n]", " ", text)


def _blank_directives(lines: list[str]) -> Iterator[str]:
    # Both branches of an #if may open the same brace, so only the first branch is read.
    branches: list[bool] = []
    continued = False
    for line in lines:
        word = re.match(r"\s*#\s*(\w+)", line)
        if word and not continued:
            _follow_branch(branches, word.group(1))
        keep = not word and not continued and all(branches)
        continued = line.endswith("\\") and (continued or bool(word))
        yield line if keep else ""


def _follow_branch(branches: list[bool], word: str) -> None:
    if word.startswith("if"):
        branches.append(True)
    elif word.startswith("el") and branches:
        branches[-1] = False
    elif word == "endif" and branches:
        branches.pop()


def brace_functions(text: str, suffix: str) -> Iterator[BraceFunction]:
    """Yield the functions of a source text; `suffix` (".cpp", ".h", ".js" ...) says which language it is."""
    javascript = suffix in JS_SUFFIXES
    text = blank_literals(text, suffix)
    scopes: list[_Scope] = []
    parentheses = 0
    start = 0  # where the statement being read began
    for match in re.finditer(r"[{};()]", text):
        symbol, position = match.group(), match.start()
        if symbol in "()":
            parentheses += 1 if symbol == "(" else -1
        elif symbol == "{":
            scopes.append(_open_scope(text[start:position], start, scopes, javascript))
            start = position + 1
        elif symbol == "}" and scopes:
            scope = scopes.pop()
            if scope.is_function:
                yield _function(text, scope, position)
            start = position + 1
        elif symbol == ";" and not (parentheses and not javascript):
            start = position + 1


def _open_scope(header: str, start: int, scopes: list[_Scope], javascript: bool) -> _Scope:
    if javascript:
        is_function = bool(JS_FUNCTION.search(header)) and not CONTROL.match(header)
        return _Scope(start, header, is_function, holds_declarations=True)
    among_declarations = all(scope.holds_declarations for scope in scopes)
    is_function = among_declarations and bool(CPP_PARAMETERS.search(header)) and not CONTROL.match(header)
    opens_scope = not is_function and bool(CPP_SCOPE.search(header))
    return _Scope(start, header, is_function, holds_declarations=opens_scope)


def _function(text: str, scope: _Scope, end: int) -> BraceFunction:
    first = scope.start + len(scope.header) - len(scope.header.lstrip())
    name = NAME.search(scope.header)
    line = text.count("\n", 0, first) + 1
    return BraceFunction(name.group(1) if name else "(unnamed)", line, text.count("\n", first, end) + 1)
