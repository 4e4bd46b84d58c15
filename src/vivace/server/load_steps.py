"""Which steps are taken against high load: one after another while it lasts, taken back in reverse when it is over.

Values and a state machine; nothing here measures load or does anything about it.
"""

from collections.abc import Callable
from dataclasses import dataclass

from vivace.cache.policies import parse_policy
from vivace.types.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Step:
    """One step.

    Args:
        kind: a row of KINDS.
        value: of those that have one: tokens, tokens of a window, the name of a model; "" of the others.
    """

    kind: str
    value: str = ""

    def __post_init__(self) -> None:
        check = KINDS.get(self.kind)
        if check is None:
            raise ConfigError(f"There is no step {self.kind!r} against high load.", f"Known are: {', '.join(KINDS)}.")
        check(self.kind, self.value)


def _no_value(kind: str, value: str) -> None:
    if value:
        raise ConfigError(f"The step {kind} has no value, and {value!r} is given.", f"Write {kind}.")


def _tokens(kind: str, value: str) -> None:
    if not (value.isascii() and value.isdecimal() and len(value) < 8 and int(value) > 0):
        raise ConfigError(f"{kind} is {value!r}.", f"Write {kind}=TOKENS, at least 1.")


def _window(kind: str, value: str) -> None:
    _tokens(kind, value)
    parse_policy(f"window:{value}")


def _name(kind: str, value: str) -> None:
    if not value:
        raise ConfigError("The step model names no model.", "Write model=NAME, as --model takes it.")


KINDS: dict[str, Callable[[str, str], None]] = {
    "background": _no_value,
    "max_tokens": _tokens,
    "speculation": _no_value,
    "kv_window": _window,
    "model": _name,
}
"""Kinds of steps, with what checks their value: pause what is done ahead of need, shorten new answers, guess no more
ahead, let new answers see a window of their past, let a smaller model give new answers."""


@dataclass(frozen=True, slots=True)
class LoadConfig:
    """When load is high, and what is done then.

    Args:
        steps: in the order they are taken; none: nothing is done.
        at: answers in work, those that wait included, from which on load is high.
        back_share: it is low again at this share of `at`; between the two nothing changes.
        up_after_s: load has been high for so long before the next step is taken.
        down_after_s: load has been low for so long before the last step is taken back.
    """

    steps: tuple[Step, ...] = ()
    at: int = 8
    back_share: float = 0.6
    up_after_s: float = 2.0
    down_after_s: float = 10.0

    def __post_init__(self) -> None:
        kinds = [step.kind for step in self.steps]
        if len(set(kinds)) < len(kinds):
            raise ConfigError("A step against high load is given twice.", "Give each once.")
        if self.at < 1:
            raise ConfigError(f"Load is high from {self.at} answers on.", "Give at least 1.")
        if not 0 <= self.back_share < 1:
            raise ConfigError(f"back_share is {self.back_share}.", "Give 0 to below 1.")
        for name in ("up_after_s", "down_after_s"):
            if not 0 < getattr(self, name) <= 3600:
                raise ConfigError(f"{name} is {getattr(self, name)}.", "Give seconds above 0, at most 3600.")

    def value_of(self, kind: str) -> str | None:
        """The value of a step; None: it is not among the steps."""
        return next((step.value for step in self.steps if step.kind == kind), None)


NO_STEPS = LoadConfig()
"""Load changes nothing."""


def parse_steps(text: str) -> tuple[Step, ...]:
    """Steps from a list such as "background,max_tokens=256,speculation,kv_window=1024,model=NAME".

    Raises:
        ConfigError: an unknown step, or a value that cannot be.
    """
    pairs = (part.strip().partition("=") for part in text.split(","))
    return tuple(Step(kind, value) for kind, _, value in pairs)


@dataclass(frozen=True, slots=True)
class Change:
    """A step was taken, or taken back."""

    step: Step
    is_taken: bool


class LoadSteps:
    """How many of the steps are taken. The caller tells the time, which never goes back."""

    __slots__ = ("_config", "_num_taken", "_side", "_since_s")

    def __init__(self, config: LoadConfig) -> None:
        self._config = config
        self._num_taken = 0
        self._side = 0
        self._since_s = 0.0

    @property
    def taken(self) -> tuple[Step, ...]:
        """Steps that are taken, in their order."""
        return self._config.steps[: self._num_taken]

    def note(self, now_s: float, num_in_work: int) -> Change | None:
        """Take a look at the load; what follows from it, at most one change."""
        config = self._config
        side = 1 if num_in_work >= config.at else -1 if num_in_work <= config.back_share * config.at else 0
        if side != self._side:
            self._side, self._since_s = side, now_s
        waited_s = now_s - self._since_s
        if side > 0 and self._num_taken < len(config.steps) and waited_s >= config.up_after_s:
            self._num_taken += 1
            self._since_s = now_s
            return Change(config.steps[self._num_taken - 1], True)
        if side < 0 and self._num_taken and waited_s >= config.down_after_s:
            self._num_taken -= 1
            self._since_s = now_s
            return Change(config.steps[self._num_taken], False)
        return None
