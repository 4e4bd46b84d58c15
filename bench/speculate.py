"""Tokens per second with and without speculation, by workload, number of streams and policy; and what a choice regrets.

    python bench/speculate.py --data FOLDER [--model smollm2-135m] [--streams 1 4 16] [--proposer auto] [--json]

FOLDER holds the data sets by name (`humaneval`, `mt_bench`, `wikitext2`, `clinc`); workloads whose data is absent are
left out. Only steps without prompt rows count. Variants take turns on the same prompts, greedy, and must give the same
tokens. With --cpu-time one thread is used and its processor time counts, so that other programs hardly disturb it.
"""

import argparse
import gzip
import itertools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from vivace.engine.core import Engine
from vivace.execute.native import NativeExecutor
from vivace.files.catalogue import resolve
from vivace.files.open import LoadedModel, open_model
from vivace.graph.build import build_graph
from vivace.schedule.config import SchedulerConfig
from vivace.speculate.config import SpeculationConfig
from vivace.speculate.measure_costs import START_ROWS, measure_step_costs
from vivace.speculate.proposers import CHOICES
from vivace.speculate.speculator import EngineSpeculator
from vivace.telemetry.clock import Clock, now_ns
from vivace.text.build import build_template, build_tokenizer
from vivace.text.template import ChatTemplate
from vivace.text.tokenizer import Tokenizer
from vivace.types.events import TokenEvent
from vivace.types.request import ChatMessage, GenerationRequest, SamplingParams, StopParams

VARIANTS: dict[str, tuple[str, int] | None] = {
    "plain": None,
    "fixed 2": ("fixed", 2),
    "fixed 3": ("fixed", 3),
    "fixed 4": ("fixed", 4),
    "fixed 7": ("fixed", 7),
    "fixed 8": ("fixed", 8),
    "window": ("window", 8),
    "measured": ("measured", 8),
}
"""Policy and number of drafts of each variant."""

GREETING_INTENTS = ("greeting", "goodbye", "thank_you", "what_is_your_name", "how_old_are_you", "are_you_a_bot")


def code_prompts(data: Path) -> Iterator[str]:
    """HumanEval signatures and docstrings, to be completed."""
    with gzip.open(data / "humaneval" / "HumanEval.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in itertools.islice(lines, 0, None, 5):
            yield json.loads(line)["prompt"]


def question_prompts(data: Path) -> Iterator[str]:
    """First turns of MT-bench."""
    lines = (data / "mt_bench" / "question.jsonl").read_text(encoding="utf-8").splitlines()
    for line in lines[::5]:
        yield json.loads(line)["turns"][0]


def repeat_prompts(data: Path) -> Iterator[str]:
    """The same paragraphs, to be given back as they are."""
    for prompt in copy_prompts(data):
        yield f"Repeat this text word for word:\n\n{prompt.partition(':')[2].strip()}"


def copy_prompts(data: Path) -> Iterator[str]:
    """Paragraphs to be summarised by quoting them."""
    paragraphs = (data / "wikitext2" / "wiki.test.raw").read_text(encoding="utf-8").splitlines()
    for paragraph in [line.strip() for line in paragraphs if 500 < len(line) < 900][::9]:
        yield f"Summarize this text by quoting its most important sentences word for word:\n\n{paragraph}"


def chat_prompts(data: Path) -> Iterator[str]:
    """Small talk."""
    rows = json.loads((data / "clinc" / "data_full.json").read_text(encoding="utf-8"))["test"]
    for text, intent in rows[::7]:
        if intent in GREETING_INTENTS:
            yield text


WORKLOADS: dict[str, tuple[Callable[[Path], Iterator[str]], bool]] = {
    "repeat": (repeat_prompts, True),
    "copy": (copy_prompts, True),
    "code": (code_prompts, False),
    "mt_bench": (question_prompts, True),
    "chat": (chat_prompts, True),
}
"""Prompts of each workload, and whether they are turns of a chat."""


@dataclass(slots=True)
class Tally:
    """Steps of streams alone."""

    seconds: float = 0.0
    num_tokens: int = 0
    num_drafted: int = 0
    num_accepted: int = 0
    texts: list[tuple[int, ...]] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return self.num_tokens / self.seconds if self.seconds else 0.0


@dataclass(slots=True)
class Subject:
    """The model under measurement; engines come and go on one executor."""

    executor: NativeExecutor
    tokenizer: Tokenizer
    template: ChatTemplate
    clock: Clock
    max_tokens: int
    costs_ms: dict[int, float]

    def encode(self, text: str, is_chat: bool) -> tuple[int, ...]:
        """Token ids of a prompt."""
        if is_chat:
            return tuple(self.template.encode_chat([ChatMessage("user", text)]))
        return tuple(self.tokenizer.encode(text))

    def run(
        self, prompts: list[tuple[int, ...]], num_streams: int, speculator: EngineSpeculator | None, tally: Tally
    ) -> None:
        """Answer prompts, so many at a time: a seat that is free is taken by the next."""
        config = SchedulerConfig(
            max_sequences=num_streams, eos_ids=frozenset(self.tokenizer.eos_ids), prefix_cache=False
        )
        engine = Engine(self.executor, config, self.clock, speculator)
        for index, prompt in enumerate(prompts):
            stopping = StopParams(max_tokens=self.max_tokens)
            engine.add(GenerationRequest(str(index), prompt, SamplingParams(temperature=0), stopping))
        texts: list[list[int]] = [[] for _ in prompts]
        while engine.has_work:
            running = engine.scheduler.running
            is_pure = bool(running) and all(sequence.num_pending == 1 for sequence in running.values())
            started_ns = self.clock()
            events = engine.step()
            elapsed_s = (self.clock() - started_ns) / 1e9
            for event in events:
                if isinstance(event, TokenEvent):
                    texts[int(event.request_id)].append(event.token_id)
                    tally.num_tokens += is_pure
            tally.seconds += elapsed_s if is_pure else 0
        stats = engine.stats()
        tally.num_drafted += stats.num_drafted_tokens
        tally.num_accepted += stats.num_accepted_tokens
        tally.texts += [tuple(text) for text in texts]


def measure(subject: Subject, prompts: list[tuple[int, ...]], num_streams: int, proposer: str) -> dict[str, Tally]:
    """Run all variants in turn over the prompts, so many at once."""
    tallies = {name: Tally() for name in VARIANTS}
    speculators: dict[str, EngineSpeculator | None] = {
        name: None
        if row is None
        else EngineSpeculator(SpeculationConfig(CHOICES[proposer], *row), subject.tokenizer.decode)
        for name, row in VARIANTS.items()
    }
    for speculator in speculators.values():
        if speculator is not None:
            speculator.assume_costs(subject.costs_ms)
    names = list(VARIANTS)
    for turn, start in enumerate(range(0, len(prompts), num_streams)):
        group = prompts[start : start + num_streams]
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            subject.run(group, speculators[name], tallies[name])
    for name, tally in tallies.items():
        assert tally.texts == tallies["plain"].texts, f"{name} changed the text"
    return tallies


def open_subject(options: argparse.Namespace) -> Subject:
    """Load the model."""
    loaded: LoadedModel = open_model(resolve(options.model))
    assert loaded.vocabulary is not None
    tokenizer = build_tokenizer(loaded.vocabulary)
    threads = 1 if options.cpu_time else options.threads
    executor = NativeExecutor(
        build_graph(loaded.spec), loaded.weights, num_blocks=1600, max_rows=512, num_threads=threads
    )
    clock = time.thread_time_ns if options.cpu_time else now_ns
    template = build_template(loaded.vocabulary, tokenizer)
    costs_ms = measure_step_costs(executor, START_ROWS, clock=clock)
    return Subject(executor, tokenizer, template, clock, options.max_tokens, costs_ms)


def row_of(workload: str, num_streams: int, tallies: dict[str, Tally]) -> dict[str, object]:
    """Figures of one workload: rates, speed-ups, what `measured` regrets against the best, how many drafts stood."""
    plain = tallies["plain"].rate
    speedups = {name: tally.rate / plain for name, tally in tallies.items()}
    best = max(speedup for name, speedup in speedups.items() if name != "measured")
    measured = tallies["measured"]
    return {
        "workload": workload,
        "streams": num_streams,
        "plain_tokens_per_s": plain,
        "speedup": speedups,
        "regret": best - speedups["measured"],
        "accepted": measured.num_accepted / measured.num_drafted if measured.num_drafted else None,
        "drafts_per_token": measured.num_drafted / max(1, measured.num_tokens),
    }


def print_table(rows: list[dict[str, object]]) -> None:
    """Speed-ups against plain, the regret of `measured`, and the share of its drafts that stood."""
    names = [name for name in VARIANTS if name != "plain"]
    print(
        f"{'workload':<9} {'streams':>7} {'plain t/s':>9} "
        + " ".join(f"{name:>8}" for name in names)
        + "  regret  stood"
    )
    for row in rows:
        speedups = row["speedup"]
        assert isinstance(speedups, dict)
        stood = "-" if row["accepted"] is None else f"{row['accepted']:.2f}"
        cells = " ".join(f"{speedups[name]:8.2f}" for name in names)
        label = f"{row['workload']:<9} {row['streams']:7d} {row['plain_tokens_per_s']:9.1f}"
        print(f"{label} {cells}  {row['regret']:6.2f}  {stood}", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--workloads", nargs="+", choices=tuple(WORKLOADS), default=list(WORKLOADS))
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--proposer", choices=[name for name in CHOICES if name != "off"], default="ngram")
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    subject = open_subject(options)
    rows = []
    for workload, num_streams in itertools.product(options.workloads, options.streams):
        read, is_chat = WORKLOADS[workload]
        try:
            texts = list(itertools.islice(read(options.data), options.prompts))
        except FileNotFoundError as error:
            print(f"{workload} is left out: {error}")
            continue
        prompts = [subject.encode(text, is_chat) for text in texts]
        rows.append(row_of(workload, num_streams, measure(subject, prompts, num_streams, options.proposer)))
        if not options.json:
            print_table(rows[-1:])
    print(json.dumps(rows)) if options.json else print_table(rows)


if __name__ == "__main__":
    main()
