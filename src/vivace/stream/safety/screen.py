"""The screen between an answer and its log: what falls under a rule is cut, masked or replaced before anybody sees it.

What it promises is about what is shown: at every moment, and in the end, that would pass the screen itself as a whole
text. So a word that is blocked alone, and was none because of the letter after it, is one where that letter is hidden
or not shown yet; and what follows a hidden place is read as a text of its own. The outcome depends on the text alone,
never on its tokens: matches that overlap are one, and a place is decided only when no match that may still come can
touch it. That is also all that is held back.
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
STARS = "*\u2022\u2588\u25a0\u25c6\u2605"
"""Signs that can stand for a hidden character; the first is taken that no blocked term holds."""


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
        ConfigError: an unknown action or pattern, a term that cannot be, or a replacement that is none.
    """

    def __init__(self, config: SafetyConfig) -> None:
        self.action = config.action
        self._rule = rule = _rule(config)
        self._factories: list[MatcherFactory] = list(named_patterns(config.patterns, rule))
        if config.blocked_terms:
            self._factories.append(BlockedTerms(config.blocked_terms, rule))
        self._star = next(filter(self._stands_apart, STARS), STARS[0])
        self._check_shown(self._star if rule.action == "mask" else rule.replacement)

    def __bool__(self) -> bool:
        return bool(self._factories)

    def screen(self) -> "Screen":
        """A screen for one text."""
        return Screen(self._factories, self._star)

    def screened(self, text: str) -> tuple[str, bool]:
        """A whole text after the screen, and whether it was ended there."""
        screen = self.screen()
        shown = screen.feed(text) + screen.finish()
        return shown, screen.has_stopped

    def in_place_of(self, text: str) -> str:
        """What is shown for a text that is not allowed, under an action that shows something."""
        return self._star * len(text) if self.action == "mask" else self._rule.replacement

    def holds_match(self, text: str) -> bool:
        """Whether a whole text falls under any rule."""
        for factory in self._factories:
            matcher = factory.matcher()
            if any(match.unless_shown < 0 for match in (*matcher.feed(text), *matcher.finish())):
                return True
        return False

    def _stands_apart(self, char: str) -> bool:
        """Whether a character can be no part of a match, and leaves what stands beside it as it would be alone."""
        return not any(factory.may_hold(char) for factory in self._factories)

    def _check_shown(self, shown: str) -> None:
        """Refuse what would make something forbidden out of itself, or of itself and the text beside it.

        Raises:
            ConfigError: it does, or might.
        """
        if self.action not in ("mask", "replace") or not self:
            return
        if not shown or not (self._stands_apart(shown[0]) and self._stands_apart(shown[-1])) or self.holds_match(shown):
            raise ConfigError(
                f"{shown!r} in the place of what is blocked could be, or become, a part of something blocked.",
                "Choose a replacement that begins and ends with a sign that no blocked term holds, such as [ and ].",
            )


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

    def shown(self, star: str) -> str:
        rule = min(self.rules, key=lambda match: (match.start, -match.end, match.rule.name)).rule
        return star * (self.end - self.start) if rule.action == "mask" else rule.replacement


class Screen:
    """Screens one text. What `feed` and `finish` give may be shown.

    Args:
        factories: of the matchers.
        star: stands for a character under the action `mask`.
    """

    def __init__(self, factories: Sequence[MatcherFactory], star: str = STARS[0]) -> None:
        self._factories, self._star = factories, star
        self._held, self._held_at = "", 0
        self.has_stopped = False
        self._begin()

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
        return self._read(text, is_last=False)

    def finish(self) -> str:
        """The text ends here; the rest of what may be shown."""
        return self._read("", is_last=True)

    def _begin(self) -> None:
        """Matchers anew, for what stands in the place of a match is a part of no other."""
        self._matchers = [factory.matcher() for factory in self._factories]
        self._begun_at = self._held_at  # where the matchers count from
        self._matches: list[Match] = []
        self._near: list[Match] = []
        self._safe = 0  # nothing before it can become a part of anything

    def _read(self, text: str, *, is_last: bool) -> str:
        if self.has_stopped:
            return ""
        self._held += text
        shown: list[str] = []
        while (region := self._next_region(text, is_last)) is not None:
            shown.append(self._taken(region.start))
            if region.stops:
                self.has_stopped, self._held = True, ""
                return "".join(shown)
            shown.append(region.shown(self._star))
            self._taken(region.end)
            text = self._held
            self._begin()
        shown.append(self._taken(self._safe))
        self._matches = [match for match in self._matches if match.end > self._safe]
        self._near = [match for match in self._near if match.unless_shown >= self._safe]
        return "".join(shown)

    def _next_region(self, text: str, is_last: bool) -> _Region | None:
        """The matchers read on; the first region, once nothing can touch it any more. Else `_safe` is set."""
        found = [match for matcher in self._matchers for match in matcher.feed(text)]
        if is_last:
            found += [match for matcher in self._matchers for match in matcher.finish()]
        self._matches += [match for match in found if match.unless_shown < 0]
        self._near += [match for match in found if match.unless_shown >= 0]
        end = self._held_at + len(self._held) - self._begun_at
        safe = end if is_last else min((matcher.open_from for matcher in self._matchers), default=end)
        region = _first_region(self._matches)
        if region is not None and region.end <= safe:
            return self._widened(region)
        self._safe = self._held_back(safe if region is None else min(safe, region.start))
        return None

    def _widened(self, region: _Region) -> _Region:
        """A region with what is a match only because the region will not be shown."""
        while beside := [match for match in self._near if match.unless_shown == region.start]:
            region.start = min(match.start for match in beside)
            region.rules += beside
        return region

    def _held_back(self, safe: int) -> int:
        """A place before everything that would be a match if the text went no further than `safe`."""
        while before := [match.start for match in self._near if match.start < safe <= match.unless_shown]:
            safe = min(before)
        return safe

    def _taken(self, end: int) -> str:
        """What is held before a place of the matchers, which is held no longer."""
        length = self._begun_at + end - self._held_at
        taken, self._held = self._held[:length], self._held[length:]
        self._held_at += length
        return taken


def _first_region(matches: Sequence[Match]) -> _Region | None:
    region: _Region | None = None
    for match in sorted(matches, key=lambda match: (match.start, match.end)):
        if region is None:
            region = _Region(match.start, match.end, [match])
        elif match.start < region.end:
            region.end = max(region.end, match.end)
            region.rules.append(match)
        else:
            break
    return region


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
