"""Running a stranger's chat template: no way into the interpreter, no loop without end, no text without bound.

A chat template is a program that came with a model file. It runs in jinja2's immutable sandbox, which closes the ways
to Python's inside; on top of that every loop turn, call and piece of text is charged to a budget, so that a template
built to hang or to fill the memory ends in an error.
"""

import json
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, NoReturn, cast

from jinja2 import Template, Undefined, nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment

from vivace.types.errors import RequestError

STEP_COST = 16  # units of the budget for one loop turn or call; one character of text costs 1
BASE_BUDGET = 8_000_000
BUDGET_PER_INPUT_CHARACTER = 200
_DEEPEST_VALUE = 100
_LARGEST_NUMBER_BITS = 4096
LARGEST_INPUT = 1 << 30

_FILTERS = """
    abs capitalize count d default dictsort e escape first float format groupby indent int items join last
    length list lower map max min reject rejectattr replace reverse safe select selectattr sort string striptags
    sum title trim truncate unique upper urlencode wordcount
"""
_STRING_METHODS = """
    capitalize count endswith find index isalnum isalpha isascii isdecimal isdigit islower isnumeric isspace
    istitle isupper join lower lstrip partition removeprefix removesuffix replace rfind rindex rpartition rsplit
    rstrip split splitlines startswith strip swapcase title upper
"""


@dataclass(frozen=True, slots=True)
class CompiledTemplate:
    """A template and what one call of a macro in it costs."""

    template: Template
    call_weight: int


class GenerationTag(Extension):
    """`{% generation %} ... {% endgeneration %}`: marks what an assistant said, for training; shown as it is."""

    tags = {"generation"}  # noqa: RUF012  (declared so by jinja2)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Drop the tag and keep its body."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class TemplateEnvironment(ImmutableSandboxedEnvironment):
    """The jinja2 environment of chat templates, with the settings and names that Hugging Face transformers gives them.

    Args:
        now: clock behind `strftime_now`.
    """

    intercepted_binops = frozenset({"+", "*", "%", "**"})

    def __init__(self, now: Callable[[], datetime] = datetime.now) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,  # constant expressions are not worked out while compiling, where no budget runs
            finalize=_charged_output,
            extensions=[LoopControlExtension, GenerationTag],
        )
        self._run = threading.local()
        self.filters = {name: call for name, call in self.filters.items() if name in _FILTERS.split()}
        self.filters |= {"tojson": self._to_json, "replace": self._replace, "join": self._join, "indent": self._indent}
        self.filters |= {"string": self._string, "format": self._format}
        self.filters |= {"_counted": self._counted, "_charged": self._charged}
        self.globals.pop("lipsum", None)
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = lambda pattern: now().strftime(str(pattern)[:100])

    def compile_template(self, source: str) -> "CompiledTemplate":
        """Compile a chat template with its loops and joins put under the budget.

        Raises:
            jinja2.TemplateError: a syntax error, or a name that does not exist.
        """
        tree = self.parse(source)
        constant_text = sum(len(node.data) for node in tree.find_all(nodes.TemplateData))
        for loop in list(tree.find_all(nodes.For)):
            weight = STEP_COST + sum(len(node.data) for node in loop.find_all(nodes.TemplateData))
            loop.iter = _filtered(loop.iter, "_counted", nodes.Const(weight))
        for concatenation in list(tree.find_all(nodes.Concat)):
            concatenation.nodes = [_filtered(part, "_charged") for part in concatenation.nodes]
        tree.set_environment(self)
        return CompiledTemplate(self.from_string(tree), STEP_COST + constant_text)

    def run(self, compiled: "CompiledTemplate", variables: Mapping[str, Any]) -> str:
        """Render a template that `compile_template` made.

        Raises:
            RequestError: the template called `raise_exception`.
            Exception: anything else that goes wrong inside a template, jinja2's errors first.
        """
        self._run.left = BASE_BUDGET + BUDGET_PER_INPUT_CHARACTER * measure(variables, LARGEST_INPUT)
        self._run.call_weight = compiled.call_weight
        return compiled.template.render(variables)

    def charge(self, units: int) -> None:
        """Take `units` from the budget of the template that runs in this thread.

        Raises:
            SecurityError: the budget is spent.
        """
        self._run.left -= units
        if self._run.left < 0:
            raise SecurityError("the template ran for too long or wrote too much text")

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Strings offer the methods that chat templates use; numbers and bytes offer none."""
        if isinstance(obj, str):
            return attr in _STRING_METHODS.split()
        if isinstance(obj, int | float | complex | bytes):
            return False
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> None:
        """`str.format` is not offered: widths nested in its patterns cannot be bounded."""

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:  # noqa: D102
        owner = getattr(obj, "__self__", None)
        weight = self._run.call_weight if isinstance(obj, Macro | LoopContext) else STEP_COST
        self.charge(weight + (len(owner) // 16 if isinstance(owner, str) else 0))
        if isinstance(owner, str) and obj.__name__ == "replace":
            self._check_replace(owner, *args[:2])
        elif isinstance(owner, str) and obj.__name__ == "join":
            args = (self._joinable(owner, args[0]),)
        elif isinstance(obj, LoopContext):
            args = (self._counted(args[0], self._run.call_weight),)
        return super().call(context, obj, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:  # noqa: D102
        if operator == "%" and isinstance(left, str):
            self._check_format(left, right)
        if operator in ("*", "**") and isinstance(left, int) and isinstance(right, int):
            bits = left.bit_length() * right if operator == "**" else left.bit_length() + right.bit_length()
            if bits > _LARGEST_NUMBER_BITS:
                raise SecurityError("a number in the template is too large")
        if operator == "*":
            for sequence, times in ((left, right), (right, left)):
                if isinstance(sequence, str | list | tuple) and isinstance(times, int):
                    self.charge(len(sequence) * max(times, 0))
        result = super().call_binop(context, operator, left, right)
        if operator == "+" and isinstance(result, str | list | tuple):
            self.charge(len(result))
        return result

    def _counted(self, items: Any, weight: int) -> Any:
        """The items of a loop as a list, paid for in advance."""
        if isinstance(items, Undefined) or items is None:
            return items  # jinja2 has its own words for these
        found = list(islice(iter(items), max(self._run.left // weight, 0) + 1))
        self.charge(len(found) * weight)
        return found

    def _charged(self, value: Any) -> Any:
        self.charge(measure(value, self._run.left))
        return value

    def _string(self, value: Any) -> str:
        return str(self._charged(value))

    def _to_json(
        self,
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        """JSON as transformers' `tojson` writes it: as it is, without escapes for HTML."""
        self._charged(value)
        indent = None if indent is None else min(int(indent), 16)
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def _check_replace(self, text: str, old: Any = "", new: Any = "") -> None:
        if isinstance(old, str) and isinstance(new, str):
            self.charge(len(text) + text.count(old) * len(new))

    def _replace(self, value: Any, old: str, new: str, count: int | None = None) -> str:
        text = str(self._charged(value))
        self._check_replace(text, old, new)
        return text.replace(old, new, -1 if count is None else count)

    def _joinable(self, separator: str, items: Iterable[Any]) -> list[Any]:
        found: list[Any] = self._counted(items, 1 + len(separator))
        self._charged(found)
        return found

    def _join(self, value: Iterable[Any], d: str = "", attribute: str | int | None = None) -> str:
        if attribute is not None:
            value = [self.getitem(item, attribute) for item in self._counted(value, STEP_COST)]
        return str(d).join(str(item) for item in self._joinable(str(d), value))

    def _indent(self, value: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
        text = str(self._charged(value))
        margin = width if isinstance(width, str) else " " * min(width, 64)
        lines = text.splitlines() + ([""] if text.endswith("\n") else [])
        self.charge(len(lines) * len(margin))
        indented = [margin + line if blank or line else line for line in lines[1:]]
        return (margin if first else "") + "\n".join([*lines[:1], *indented])

    def _format(self, pattern: Any, *args: Any, **kwargs: Any) -> str:
        self._check_format(str(pattern), kwargs or args)
        return str(pattern) % (kwargs or args)

    def _check_format(self, pattern: str, values: Any) -> None:
        """`%` formatting takes widths of at most three digits."""
        if re.search(r"\d{4}|\*", pattern):
            raise SecurityError("a width in the template's format is too large")
        self.charge(len(pattern) + 1000 * pattern.count("%"))
        self._charged(values)


def _filtered(value: nodes.Node, name: str, *arguments: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(cast(nodes.Expr, value), name, list(arguments), [], None, None, lineno=value.lineno)


@pass_context
def _charged_output(context: Context, value: Any) -> Any:
    """Charge what an expression writes."""
    return cast(TemplateEnvironment, context.environment)._charged(value)


def _raise_exception(message: object = "") -> NoReturn:
    raise RequestError(
        f"The model's chat template refuses this conversation: {message}.",
        "Change the messages to what the template takes.",
        param="messages",
    )


def measure(value: Any, limit: int) -> int:
    """Characters that writing `value` takes, roughly.

    Raises:
        SecurityError: more than `limit`, or nested too deeply.
    """
    total = 0
    level = [value]
    for _ in range(_DEEPEST_VALUE):
        below: list[Any] = []
        for item in level:
            total += 2
            if isinstance(item, str):
                total += len(item)
            elif isinstance(item, Mapping):
                below += [*item.keys(), *item.values()]
            elif isinstance(item, list | tuple | set | frozenset):
                below += item
            else:
                total += STEP_COST + (item.bit_length() // 3 if isinstance(item, int) else 0)
            if total + STEP_COST * len(below) > limit:
                raise SecurityError("the template ran for too long or wrote too much text")
        if not below:
            return total
        level = below
    raise SecurityError("a value in the template is nested too deeply")
