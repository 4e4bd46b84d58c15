"""How many tokens later a text is shown because of the filter.

python bench/filter_delay.py [--texts 3000]

Texts in English and Chinese, cut at random places into tokens of about three characters (as a model's are), with
planted violations or with none. A token's delay is the number of tokens that had come after it when the last of its
characters was shown. Leaks are counted as well: a text that was shown and does not pass the filter.
"""

import argparse
import random
from collections.abc import Iterator
from itertools import pairwise
from statistics import mean, median, quantiles

from vivace.stream.safety.screen import SafetyConfig, SafetyRules

TERMS = ("bad", "badger", "敏感", "敏感词语", "very bad thing")
VIOLATIONS = {
    "en": ["bad", "badger", "very bad thing", "jane.doe@example.co.uk", "4111 1111 1111 1111", "123-45-6789"],
    "zh": ["敏感", "敏感词语", "+86 138-1234-5678", "11010519491231002X"],
}
WORDS = {
    "en": "the weather in Paris is fine today so we walk along the river and talk about books , then rest .",
    "zh": "今天 天气 很 好 ， 所以 我们 去 河边 散步 ， 谈 书 ， 然后 休息 。",
}
RULES = {"terms": (), "terms, personal data, secrets": ("personal", "secrets")}


def texts(language: str, is_planted: bool, count: int, rng: random.Random) -> Iterator[tuple[str, list[str]]]:
    """Texts and their tokens."""
    blank = " " if language == "en" else ""
    for _ in range(count):
        parts = rng.choices(WORDS[language].split(), k=rng.randint(10, 40))
        if is_planted:
            for violation in rng.choices(VIOLATIONS[language], k=2):
                parts.insert(rng.randint(0, len(parts)), f" {violation} ")
        text = blank.join(parts)
        edges = sorted({0, len(text), *rng.sample(range(len(text)), len(text) // 3)})
        yield text, [text[start:end] for start, end in pairwise(edges)]


def delays(rules: SafetyRules, tokens: list[str]) -> tuple[list[int], bool]:
    """The delay of each token, and whether something shown does not pass; masks keep lengths, so places agree."""
    screen, shown, end, found = rules.screen(), "", 0, list[int]()
    waiting: list[tuple[int, int]] = []
    for number, token in enumerate(tokens):
        end += len(token)
        shown += screen.feed(token)
        waiting.append((end, number))
        found += [number - came for place, came in waiting if place <= len(shown)]
        waiting = [row for row in waiting if row[0] > len(shown)]
    shown += screen.finish()
    found += [len(tokens) - 1 - came for _, came in waiting]
    return found, rules.holds_match(shown)


def main() -> None:
    """Print a row for each kind of text and rules."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=3000)
    count = parser.parse_args().texts
    print("language, violations, rules: delay in tokens median / mean / 95 % / most; planted, leaks")
    for name, patterns in RULES.items():
        rules = SafetyRules(SafetyConfig(TERMS, patterns))
        for language in WORDS:
            for is_planted in (False, True):
                found, num_leaks = list[int](), 0
                for _, tokens in texts(language, is_planted, count, random.Random(18)):
                    late, leaks = delays(rules, tokens)
                    found += late
                    num_leaks += leaks
                row = f"{median(found):.0f} / {mean(found):.2f} / {quantiles(found, n=20)[18]:.0f} / {max(found)}"
                print(f"{language}, {'two each' if is_planted else 'none'}, {name}: {row}; "
                      f"{2 * count * is_planted}, {num_leaks}")  # fmt: skip


if __name__ == "__main__":
    main()
