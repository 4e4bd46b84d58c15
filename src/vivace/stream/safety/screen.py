"""The screen between an answer and its log: what falls under a rule is cut, masked or replaced before anybody sees it.

The outcome depends on the text alone, never on its tokens: matches that overlap are one, and a place is decided only
when no match that may still come can touch it. That is also all that is held back.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from vivace.stream.safety.checks import CheckConfig
from vivace.stream.safety.matches import Action, Match, MatcherFactory, Rule
from vivace.stream.safety.rows import named_patterns
from vivace.stream.safety.terms import BlockedTerms
from vivace.types.answer import AnswerChunk
from vivace.types.errors import ConfigError

ACTIONS = ("stop", "mask", "replace", "regenerate")


@dataclass(frozen=True, slots=True)
class SafetyConfig:
    """What may not leave.

    Args:
        blocked_terms: words and phrases, see `BlockedTerms`.
        patterns: names of `rows.PATTERNS` or `rows.GROUPS`.
        action: what is done about a match, one of ACTIONS.
        replacement: the text that stands in its place under "replace".
        check_input: refuse requests whose own text holds a match.
        checks: what else is asked about the text.
    """

    blocked_terms: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    action: str = "mask"
    replacement: str = "[removed]"
    check_input: bool = False
    checks: tuple[CheckConfig, ...] = ()


class SafetyRules:
    """A config compiled once, for all texts.

    Raises:
        ConfigError: an unknown action or pattern, or a term that cannot be.
    """

    def __init__(self, config: SafetyConfig) -> None:
        self.action = config.action
        self._rule = rule = _rule(config)
        self._factories: list[MatcherFactory] = list(named_patterns(config.patterns, rule))
        if config.blocked_terms:
            self._factories.append(BlockedTerms(config.blocked_terms, rule))

    def __bool__(self) -> bool:
        return bool(self._factories)

    def screen(self) -> "Screen":
        """A screen for one text."""
        return Screen(self._factories)

    def screened(self, text: str) -> tuple[str, bool]:
        """A whole text after the screen, and whether it was ended there."""
        screen = self.screen()
        shown = screen.feed(text) + screen.finish()
        return shown, screen.has_stopped

    def in_place_of(self, text: str) -> str:
        """What is shown for a text that is not allowed, under an action that shows something."""
        return "*" * len(text) if self.action == "mask" else self._rule.replacement

    def holds_match(self, text: str) -> bool:
        """Whether a text falls under any rule."""
        matchers = [factory.matcher() for factory in self._factories]
        return any(matcher.feed(text) or matcher.finish() for matcher in matchers)


def _rule(config: SafetyConfig) -> Rule:
    actions: dict[str, Action] = {"stop": "stop", "mask": "mask", "replace": "replace", "regenerate": "stop"}
    if config.action in actions:
        return Rule("blocked", actions[config.action], config.replacement)
    raise ConfigError(f"There is no filter action {config.action!r}.", f"Use one of {', '.join(ACTIONS)}.")


@dataclass(slots=True)
class _Region:
    """Matches that overlap, as one."""

    start: int
    end: int
    rules: list[Match]

    @property
    def stops(self) -> bool:
        return any(match.rule.action == "stop" for match in self.rules)

    @property
    def shown(self) -> str:
        rule = min(self.rules, key=lambda match: (match.start, -match.end, match.rule.name)).rule
        return "*" * (self.end - self.start) if rule.action == "mask" else rule.replacement


class Screen:
    """Screens one text. What `feed` and `finish` give may be shown.

    Args:
        factories: of the matchers.
    """

    def __init__(self, factories: Sequence[MatcherFactory]) -> None:
        self._matchers = [factory.matcher() for factory in factories]
        self._held, self._held_at = "", 0
        self._matches: list[Match] = []
        self.has_stopped = False

    @property
    def num_decided(self) -> int:
        """Characters from the beginning that are decided: all those before the place that it stopped at, if it has."""
        return self._held_at

    @property
    def num_held(self) -> int:
        """Characters that are held back."""
        return len(self._held)

    def feed(self, text: str) -> str:
        """Take more text; what may be shown now."""
        if self.has_stopped:
            return ""
        self._held += text
        for matcher in self._matchers:
            self._matches.extend(matcher.feed(text))
        end = self._held_at + len(self._held)
        return self._release(min((matcher.open_from for matcher in self._matchers), default=end))

    def finish(self) -> str:
        """The text ends here; the rest of what may be shown."""
        if self.has_stopped:
            return ""
        for matcher in self._matchers:
            self._matches.extend(matcher.finish())
        return self._release(self._held_at + len(self._held))

    def _release(self, safe: int) -> str:
        """Everything before `safe`, or before the region that reaches across it."""
        shown: list[str] = []
        at = self._held_at
        for region in _regions(self._matches):
            if region.start >= safe or region.end > safe:
                safe = min(safe, region.start)
                break
            shown.append(self._text(at, region.start))
            at = region.end
            if region.stops:
                self.has_stopped = True
                self._held, self._held_at, self._matches = "", region.start, []
                return "".join(shown)
            shown.append(region.shown)
        shown.append(self._text(at, safe))
        self._held, self._held_at = self._held[safe - self._held_at :], safe
        self._matches = [match for match in self._matches if match.end > safe]
        return "".join(shown)

    def _text(self, start: int, end: int) -> str:
        return self._held[start - self._held_at : end - self._held_at]


def _regions(matches: Sequence[Match]) -> Iterator[_Region]:
    region: _Region | None = None
    for match in sorted(matches, key=lambda match: (match.start, match.end)):
        if region is not None and match.start < region.end:
            region.end = max(region.end, match.end)
            region.rules.append(match)
            continue
        if region is not None:
            yield region
        region = _Region(match.start, match.end, [match])
    if region is not None:
        yield region


@dataclass(slots=True)
class ScreenStage:
    """The stage of an answer: a screen for each choice. Log probabilities, which spell tokens out, do not pass."""

    rules: SafetyRules
    screens: dict[int, Screen] = field(default_factory=dict)

    def feed(self, chunk: AnswerChunk) -> Iterator[AnswerChunk]:
        """Take a chunk; yields one, or none once the choice was ended here."""
        screen = self.screens.get(chunk.choice)
        if screen is None:
            screen = self.screens[chunk.choice] = self.rules.screen()
        if screen.has_stopped:
            return
        text = screen.feed(chunk.text)
        if chunk.finish_reason is not None:
            text += screen.finish()
        reason = "content_filter" if screen.has_stopped else chunk.finish_reason
        yield replace(chunk, text=text, logprobs=(), finish_reason=reason)
