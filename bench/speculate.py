"""Tokens per second with and without speculation, by workload, streams and policy; and what each choice regrets.

    python bench/speculate.py --data FOLDER [--model smollm2-135m] [--streams 1 4 16] [--proposers ngram suffix self]
        [--draft-model M] [--exit-layer N] [--fixed 3 7 15] [--first 0 --prompts 16] [--cpu-time] [--json]

FOLDER holds the data sets by name (`humaneval`, `mt_bench`, `wikitext2`, `clinc`); workloads whose data is absent are
left out. So many prompts are answered at a time as there are streams, each free seat taken by the next. Only steps
without prompt rows count. Variants take turns on the same few prompts (A B C B C A ...), greedy, and must give the
same tokens. With --cpu-time one thread is used and its processor time counts, so that other programs hardly disturb it.
`--first` and `--prompts` cut a workload into pieces; `--json` prints sums that pieces can be added up from.
"""

import argparse
import functools
import gzip
import itertools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from vivace.engine.core import Engine
from vivace.execute.native import NativeExecutor
from vivace.files.catalogue import resolve
from vivace.files.open import LoadedModel, open_model
from vivace.graph.build import build_graph
from vivace.schedule.config import SchedulerConfig
from vivace.speculate.config import SpeculationConfig
from vivace.speculate.draft_memory import DraftMemory, OwnMemory, TargetMemory
from vivace.speculate.drafter import ModelDrafter
from vivace.speculate.measure_costs import measure_at_start
from vivace.speculate.proposers import LOOK_UPS, PROPOSERS
from vivace.speculate.speculator import EngineSpeculator
from vivace.speculate.text_kind import KINDS
from vivace.telemetry.clock import Clock, now_ns
from vivace.text.build import build_template, build_tokenizer
from vivace.text.template import ChatTemplate
from vivace.text.tokenizer import Tokenizer
from vivace.types.events import TokenEvent
from vivace.types.request import ChatMessage, GenerationRequest, SamplingParams, StopParams

ADAPTIVE = "adaptive"
PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class Variant:
    """Who guesses, by which policy and how much; without proposers nobody does."""

    proposers: tuple[str, ...] = ()
    policy: str = "fixed"
    num_drafts: int = 1


def variants_of(options: argparse.Namespace) -> dict[str, Variant]:
    """Plain decoding, each number of drafts of each proposer, the chapter's window, and the adaptive policy."""
    look_ups = tuple(name for name in options.proposers if name in LOOK_UPS)
    variants = {PLAIN: Variant()}
    for name in options.proposers:
        for count in options.fixed:
            variants[f"{name} {count}"] = Variant((name,), "fixed", count)
    if look_ups:
        variants["window"] = Variant(look_ups[:1], "window", 8)
    variants[ADAPTIVE] = Variant(tuple(options.proposers), "measured", options.max_drafts)
    return variants


GREETING_INTENTS = ("greeting", "goodbye", "thank_you", "what_is_your_name", "how_old_are_you", "are_you_a_bot")


def code_prompts(data: Path) -> Iterator[str]:
    """HumanEval signatures and docstrings, to be completed."""
    with gzip.open(data / "humaneval" / "HumanEval.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)["prompt"]


def question_prompts(data: Path) -> Iterator[str]:
    """First turns of MT-bench."""
    lines = (data / "mt_bench" / "question.jsonl").read_text(encoding="utf-8").splitlines()
    for line in lines:
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
    num_steps: int = 0
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
    drafters: Callable[[str], ModelDrafter]

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
            tally.num_steps += is_pure
        stats = engine.stats()
        tally.num_drafted += stats.num_drafted_tokens
        tally.num_accepted += stats.num_accepted_tokens
        tally.texts += [tuple(text) for text in texts]

    def speculator(self, variant: Variant) -> EngineSpeculator | None:
        """Of a variant; its learning goes on from group to group."""
        if not variant.proposers:
            return None
        drafters = [self.drafters(name) for name in variant.proposers if name not in LOOK_UPS]
        config = SpeculationConfig(variant.proposers, variant.policy, variant.num_drafts)
        speculator = EngineSpeculator(config, self.tokenizer.decode, drafters, self.clock)
        speculator.assume_costs(self.costs_ms)
        return speculator


def measure(
    subject: Subject, prompts: list[tuple[int, ...]], num_streams: int, variants: dict[str, Variant]
) -> tuple[dict[str, Tally], dict[str, EngineSpeculator | None]]:
    """Run all variants in turn over groups of prompts."""
    tallies = {name: Tally() for name in variants}
    speculators = {name: subject.speculator(variant) for name, variant in variants.items()}
    names = list(variants)
    size = max(2, 2 * num_streams)
    for turn, start in enumerate(range(0, len(prompts), size)):
        group = prompts[start : start + size]
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            subject.run(group, num_streams, speculators[name], tallies[name])
    for name, tally in tallies.items():
        assert tally.texts == tallies[PLAIN].texts, f"{name} changed the text"
    return tallies, speculators


def open_subject(options: argparse.Namespace) -> Subject:
    """Load the model, and the draft model if there is one."""
    loaded: LoadedModel = open_model(resolve(options.model))
    assert loaded.vocabulary is not None
    tokenizer = build_tokenizer(loaded.vocabulary)
    threads = 1 if options.cpu_time else options.threads
    executor = open_executor(loaded, threads)
    clock = time.thread_time_ns if options.cpu_time else now_ns
    template = build_template(loaded.vocabulary, tokenizer)
    costs_ms = measure_at_start(executor, clock=clock)

    @functools.cache
    def draft_executor() -> NativeExecutor:
        return open_executor(open_model(resolve(options.draft_model)), threads)

    def drafter(name: str) -> ModelDrafter:
        early = executor.early_exit(options.exit_layer, 256) if name == "self" else draft_executor()
        memory: DraftMemory = TargetMemory() if name == "self" else OwnMemory(early.num_blocks)
        return ModelDrafter(name, early, memory, costs_ms=measure_at_start(early, clock=clock), clock=clock)

    return Subject(executor, tokenizer, template, clock, options.max_tokens, costs_ms, drafter)


def open_executor(loaded: LoadedModel, threads: int | None) -> NativeExecutor:
    """With room for all streams."""
    return NativeExecutor(build_graph(loaded.spec), loaded.weights, num_blocks=1600, max_rows=512, num_threads=threads)


def row_of(
    workload: str,
    num_streams: int,
    tallies: dict[str, Tally],
    speculators: dict[str, EngineSpeculator | None],
) -> dict[str, object]:
    """Figures of one workload: rates, speed-ups, what each variant regrets against the best, how many drafts stood."""
    plain = tallies[PLAIN].rate
    speedups = {name: tally.rate / plain for name, tally in tallies.items()}
    adaptive, speculator = tallies[ADAPTIVE], speculators[ADAPTIVE]
    assert speculator is not None
    kinds = speculator.report_by_kind().kinds.items()
    return {
        "workload": workload,
        "streams": num_streams,
        "plain_tokens_per_s": plain,
        "speedup": speedups,
        "sums": {name: (tally.num_tokens, tally.seconds) for name, tally in tallies.items()},
        "regret": 1 - speedups[ADAPTIVE] / max(speedups.values()),
        "accepted": adaptive.num_accepted / adaptive.num_drafted if adaptive.num_drafted else None,
        "drafts_per_step": adaptive.num_drafted / max(1, adaptive.num_steps * num_streams),
        "kinds": {kind: asdict(usage) | {"speedup": usage.speedup} for kind, usage in kinds if usage.num_turns},
    }


def print_table(rows: list[dict[str, object]], names: list[str]) -> None:
    """Speed-ups against plain, the regret of the adaptive policy, and the share of its drafts that stood."""
    width = max(map(len, names))
    print(f"{'workload':<9}{'streams':>8}{'plain t/s':>10} " + " ".join(f"{name:>{width}}" for name in names), end="")
    print("  regret  stood  drafts")
    for row in rows:
        speedups = row["speedup"]
        assert isinstance(speedups, dict)
        stood = "-" if row["accepted"] is None else f"{row['accepted']:.2f}"
        cells = " ".join(f"{speedups[name]:{width}.2f}" for name in names)
        label = f"{row['workload']:<9}{row['streams']:>8}{row['plain_tokens_per_s']:10.1f}"
        print(f"{label} {cells}  {row['regret']:6.3f} {stood:>6} {row['drafts_per_step']:7.2f}", flush=True)


def print_kinds(rows: list[dict[str, object]]) -> None:
    """What the adaptive policy did by kind of text, beside what the chapter expects."""
    expected = {row.kind: row for row in KINDS}
    print("kind       workload  streams  drafts a turn  stood  speed-up   chapter: drafts, acceptance")
    for row in rows:
        kinds = row["kinds"]
        assert isinstance(kinds, dict)
        for kind, usage in kinds.items():
            drafts = usage["num_drafted"] / usage["num_turns"]
            stood = usage["num_accepted"] / usage["num_drafted"] if usage["num_drafted"] else 0.0
            least, most = expected[kind].num_drafts
            print(
                f"{kind:<10} {row['workload']:<9} {row['streams']:7d}  {drafts:13.2f}  {stood:5.2f}  "
                f"{usage['speedup']:8.2f}   {least}-{most}, {expected[kind].acceptance:g}"
            )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--workloads", nargs="+", choices=tuple(WORKLOADS), default=list(WORKLOADS))
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--proposers", nargs="+", choices=PROPOSERS, default=list(LOOK_UPS))
    parser.add_argument("--draft-model")
    parser.add_argument("--exit-layer", type=int, default=15)
    parser.add_argument("--fixed", type=int, nargs="*", default=[2, 3, 7, 15])
    parser.add_argument("--max-drafts", type=int, default=15, help="of the adaptive policy")
    parser.add_argument("--first", type=int, default=0, help="prompts of each workload to pass over")
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if "draft" in options.proposers and options.draft_model is None:
        parser.error("the proposer draft needs --draft-model")
    subject, variants = open_subject(options), variants_of(options)
    names = [name for name in variants if name != PLAIN]
    rows = []
    for workload, num_streams in itertools.product(options.workloads, options.streams):
        read, is_chat = WORKLOADS[workload]
        try:
            texts = list(itertools.islice(read(options.data), options.first, options.first + options.prompts))
        except FileNotFoundError as error:
            print(f"{workload} is left out: {error}")
            continue
        prompts = [subject.encode(text, is_chat) for text in texts]
        rows.append(row_of(workload, num_streams, *measure(subject, prompts, num_streams, variants)))
        if not options.json:
            print_table(rows[-1:], names)
    if options.json:
        print(json.dumps(rows))
        return
    print_table(rows, names)
    print_kinds(rows)


if __name__ == "__main__":
    main()
