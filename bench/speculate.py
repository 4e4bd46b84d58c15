"""Tokens per second with and without speculation, by workload, streams and policy; and what each choice regrets.

    python bench/speculate.py --data FOLDER [--model smollm2-135m] [--streams 1 4 16] [--proposers ngram suffix self]
        [--draft-model M] [--exit-layer N] [--fixed 3 7 15] [--prompts 16] [--part 16] [--state FILE] [--limit-s 140]
    python bench/speculate.py --matrix --data FOLDER --state FILE [--minutes 40]
    python bench/speculate.py --report FILE

FOLDER holds the data sets by name (`humaneval`, `mt_bench`, `wikitext2`, `clinc`); workloads whose data is absent are
left out. So many prompts are answered at a time as there are streams, each free seat taken by the next. `tokens a
second` is of steps that compute streams alone with all seats taken, on the wall clock; `end to end` is of all steps,
prompts and half-empty ends included. Variants run side by side, a step of each in turn, so that a slow moment falls on
all; where models guess, they take turns on the same few prompts (A B C B C A ...). All are greedy, and must
give the same tokens. Each part of `--part` prompts begins with speculators that know nothing. With --state each part
that is done is a line in a file, a part that is there is not measured again, and none is begun after --limit-s; the
tables are of the whole file then. --matrix measures what the documentation shows, the most telling first: adaptive and
plain decoding everywhere; then every fixed number of drafts alone and in fours; then models that guess. A draft model
`layers:6` is made of the first layers of the model itself, with a KV pool of its own. With --cpu-time one thread is
used and its processor time counts.
"""

import argparse
import functools
import itertools
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from speculate_report import ADAPTIVE, PLAIN, brief, print_report, read_parts, told_of
from speculate_workloads import WORKLOADS
from vivace.engine.core import Engine
from vivace.engine.speculation import TRIAL_TEXT
from vivace.execute.native import NativeExecutor
from vivace.files.catalogue import resolve
from vivace.files.open import LoadedModel, open_model
from vivace.graph.build import build_graph
from vivace.graph.passes import cut_after_layer
from vivace.schedule.config import SchedulerConfig
from vivace.speculate.config import SpeculationConfig
from vivace.speculate.costs import StepTimes
from vivace.speculate.draft_memory import DraftMemory, OwnMemory, TargetMemory
from vivace.speculate.drafter import ModelDrafter
from vivace.speculate.measure_costs import measure_at_start
from vivace.speculate.proposers import LOOK_UPS, PROPOSERS
from vivace.speculate.speculator import EngineSpeculator
from vivace.speculate.trial import acceptance_of, write_trial
from vivace.telemetry.clock import Clock, now_ns
from vivace.text.build import build_template, build_tokenizer
from vivace.text.template import ChatTemplate
from vivace.text.tokenizer import Tokenizer
from vivace.types.events import TokenEvent
from vivace.types.request import ChatMessage, GenerationRequest, SamplingParams, StopParams

FIRST_LAYERS = "layers:"


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
    if look_ups and not options.no_window:
        variants["window"] = Variant(look_ups[:1], "window", 8)
    variants[ADAPTIVE] = Variant(tuple(options.proposers), "measured", options.max_drafts)
    return variants


@dataclass(frozen=True, slots=True)
class Job:
    """A cell of the tables: prompts of a workload that so many streams answer, by each variant."""

    workload: str
    num_streams: int
    variants: dict[str, Variant]
    num_prompts: int
    part: int


def jobs_of(options: argparse.Namespace) -> list[Job]:
    """What the options ask for."""
    variants = variants_of(options)
    cells = itertools.product(options.workloads, options.streams)
    return [Job(workload, streams, variants, options.prompts, options.part) for workload, streams in cells]


def matrix(options: argparse.Namespace) -> list[Job]:
    """What the documentation shows, the most telling first."""
    plain, adaptive = Variant(), Variant(tuple(LOOK_UPS), "measured", options.max_drafts)
    both = {PLAIN: plain, ADAPTIVE: adaptive}
    fixed = {f"{name} {count}": Variant((name,), "fixed", count) for name in LOOK_UPS for count in options.fixed}
    by_model = {
        f"{name} {count}": Variant((name,), "fixed", count) for name in ("draft", "self") for count in (1, 3)
    } | {f"auto+{name}": Variant((*LOOK_UPS, name), "measured", options.max_drafts) for name in ("draft", "self")}
    jobs = [Job(workload, streams, both, 32, 32) for streams in (16, 4, 1) for workload in options.workloads]
    jobs += [Job(workload, streams, both | fixed, 16, 16) for streams in (1, 4) for workload in options.workloads]
    jobs += [Job(workload, 1, both | by_model, 8, 8) for workload in ("code", "mt_bench", "copy")]
    return jobs + [Job(workload, streams, both, 80, 32) for streams in (16, 4, 1) for workload in options.workloads]


@dataclass(slots=True)
class Tally:
    """What a variant did: `num_tokens` in `seconds` of full steps of streams alone, `all_tokens` in `all_seconds`."""

    seconds: float = 0.0
    num_steps: int = 0
    num_tokens: int = 0
    all_seconds: float = 0.0
    all_tokens: int = 0
    num_drafted: int = 0
    num_accepted: int = 0

    def add(self, other: "Tally") -> None:
        """Take in what another has counted."""
        for name, value in asdict(other).items():
            setattr(self, name, getattr(self, name) + value)


@dataclass(slots=True)
class Lane:
    """An engine that answers prompts, so many at a time: a seat that is free is taken by the next."""

    engine: Engine
    clock: Clock
    num_streams: int
    texts: list[list[int]]
    tally: Tally = field(default_factory=Tally)

    def step(self) -> None:
        """One step of the engine, counted."""
        before, tally = self.engine.stats(), self.tally
        started_ns = self.clock()
        events = self.engine.step()
        elapsed_s = (self.clock() - started_ns) / 1e9
        tokens = [event for event in events if isinstance(event, TokenEvent)]
        for event in tokens:
            self.texts[int(event.request_id)].append(event.token_id)
        stats = self.engine.stats()
        drafted = stats.num_drafted_tokens - before.num_drafted_tokens
        is_full = stats.num_computed_tokens - before.num_computed_tokens == self.num_streams + drafted
        if is_full and before.running_sequences == self.num_streams:
            tally.seconds += elapsed_s
            tally.num_steps += 1
            tally.num_tokens += len(tokens)
        tally.all_seconds += elapsed_s
        tally.all_tokens += len(tokens)
        tally.num_drafted += drafted
        tally.num_accepted += stats.num_accepted_tokens - before.num_accepted_tokens


def run_side_by_side(lanes: Sequence[Lane]) -> None:
    """Step after step, of whoever has had the least time, so that a slow moment of the machine falls on all."""
    while working := [lane for lane in lanes if lane.engine.has_work]:
        min(working, key=lambda lane: lane.tally.all_seconds).step()


@dataclass(slots=True)
class Subject:
    """The model under measurement; engines come and go on its executors, which are alike and numbered."""

    executor: Callable[[int], NativeExecutor]
    tokenizer: Tokenizer
    template: ChatTemplate
    clock: Clock
    max_tokens: int
    times: StepTimes
    drafters: Callable[[str], ModelDrafter]

    def encode(self, text: str, is_chat: bool) -> tuple[int, ...]:
        """Token ids of a prompt."""
        if is_chat:
            return tuple(self.template.encode_chat([ChatMessage("user", text)]))
        return tuple(self.tokenizer.encode(text))

    def lane(
        self, prompts: list[tuple[int, ...]], num_streams: int, speculator: EngineSpeculator | None, number: int = 0
    ) -> "Lane":
        """An engine with these prompts, on executor `number`."""
        eos_ids = frozenset(self.tokenizer.eos_ids)
        config = SchedulerConfig(max_sequences=num_streams, eos_ids=eos_ids, prefix_cache=False)
        engine = Engine(self.executor(number), config, self.clock, speculator)
        for index, prompt in enumerate(prompts):
            stopping = StopParams(max_tokens=self.max_tokens)
            engine.add(GenerationRequest(str(index), prompt, SamplingParams(temperature=0), stopping))
        return Lane(engine, self.clock, num_streams, [[] for _ in prompts])

    def speculator(self, variant: Variant) -> EngineSpeculator | None:
        """Of a variant; its learning goes on from group to group of a part."""
        if not variant.proposers:
            return None
        drafters = [self.drafters(name) for name in variant.proposers if name not in LOOK_UPS]
        config = SpeculationConfig(variant.proposers, variant.policy, variant.num_drafts)
        speculator = EngineSpeculator(config, self.tokenizer.decode, drafters, self.clock)
        speculator.assume_costs(self.times)
        return speculator


def measure(
    subject: Subject, prompts: list[tuple[int, ...]], num_streams: int, variants: dict[str, Variant], turn: int
) -> dict[str, object]:
    """Run all variants over groups of prompts, beginning with variant number `turn`; their sums, and kinds.

    Those that only look up run side by side, on an executor each, which they change with every group; where models
    guess, variants take turns by group. Where groups are large and few, they are gone through several times, each with
    speculators that know nothing.
    """
    tallies = {name: Tally() for name in variants}
    names = list(variants)
    are_beside = all(set(variant.proposers) <= set(LOOK_UPS) for variant in variants.values())
    size = 2 * num_streams
    starts = range(0, len(prompts), size)
    speculators: dict[str, EngineSpeculator | None] = {}
    for number, start in enumerate(itertools.chain.from_iterable([starts] * max(1, num_streams // 8))):
        if start == 0:
            speculators = {name: subject.speculator(variant) for name, variant in variants.items()}
        group, first = prompts[start : start + size], (turn + number) % len(names)
        order = names[first:] + names[:first]
        lanes: dict[str, Lane] = {}
        for together in [order] if are_beside else [[name] for name in order]:
            for place, name in enumerate(together):
                lanes[name] = subject.lane(group, num_streams, speculators[name], place)
            run_side_by_side([lanes[name] for name in together])
        for name, lane in lanes.items():
            assert lane.texts == lanes[PLAIN].texts, f"{name} changed the text"
            tallies[name].add(lane.tally)
    adaptive = speculators.get(ADAPTIVE)
    kinds = adaptive.report_by_kind().kinds.items() if adaptive else ()
    return {
        "variants": {name: asdict(tally) for name, tally in tallies.items()},
        "kinds": {kind: told_of(usage) for kind, usage in kinds if usage.num_turns},
    }


def open_subject(options: argparse.Namespace) -> Subject:
    """Load the model, and the draft model if there is one."""
    loaded: LoadedModel = open_model(resolve(options.model))
    assert loaded.vocabulary is not None
    tokenizer = build_tokenizer(loaded.vocabulary)
    threads = 1 if options.cpu_time else options.threads

    @functools.cache
    def numbered(number: int) -> NativeExecutor:
        return open_executor(loaded, threads)

    executor = numbered(0)
    clock = time.thread_time_ns if options.cpu_time else now_ns
    template = build_template(loaded.vocabulary, tokenizer)
    times = measure_at_start(executor, clock=clock)

    @functools.cache
    def draft_executor() -> NativeExecutor:
        if options.draft_model.startswith(FIRST_LAYERS):
            return open_executor(loaded, threads, int(options.draft_model.removeprefix(FIRST_LAYERS)))
        return open_executor(open_model(resolve(options.draft_model)), threads)

    def drafter(name: str) -> ModelDrafter:
        early = executor.early_exit(options.exit_layer, 256) if name == "self" else draft_executor()
        memory: DraftMemory = TargetMemory() if name == "self" else OwnMemory(early.num_blocks)
        costs_ms, acceptance = figures_of(name)
        return ModelDrafter(name, early, memory, costs_ms=costs_ms, acceptance=acceptance, clock=clock)

    @functools.cache
    def figures_of(name: str) -> tuple[dict[int, float], float]:
        """As an engine finds them before it serves."""
        early = executor.early_exit(options.exit_layer, 256) if name == "self" else draft_executor()
        acceptance = acceptance_of(early, write_trial(executor, tokenizer.encode(TRIAL_TEXT)))
        return measure_at_start(early, clock=clock).ms, acceptance

    return Subject(numbered, tokenizer, template, clock, options.max_tokens, times, drafter)


def open_executor(loaded: LoadedModel, threads: int | None, num_layers: int | None = None) -> NativeExecutor:
    """With room for all streams; of the whole model, or of so many of its layers."""
    graph = build_graph(loaded.spec)
    if num_layers is not None:
        graph = cut_after_layer(graph, num_layers)
    return NativeExecutor(graph, loaded.weights, num_blocks=1600, max_rows=512, num_threads=threads)


def measure_parts(options: argparse.Namespace, parts: list[dict[str, object]]) -> Iterator[dict[str, object]]:
    """Parts that are wanted and not there, in turn, until the time is over."""
    began_s = time.monotonic()
    subject = open_subject(options)
    done = {key_of(part) for part in parts}
    longest_s = 0.0
    for job in matrix(options) if options.matrix else jobs_of(options):
        workload, num_streams, variants = job.workload, job.num_streams, job.variants
        read, is_chat = WORKLOADS[workload]
        try:
            texts = list(itertools.islice(read(options.data), job.num_prompts))
        except FileNotFoundError as error:
            print(f"{workload} is left out: {error}", file=sys.stderr)
            continue
        size = max(job.part, 2 * num_streams)
        for turn, first in enumerate(range(options.first, len(texts), size)):
            prompts = [subject.encode(text, is_chat) for text in texts[first : first + size]]
            names = sorted(variants)
            part: dict[str, object] = {"workload": workload, "streams": num_streams, "first": first, "names": names}
            part |= {"prompts": len(prompts), "max_tokens": options.max_tokens, "model": options.model}
            if key_of(part) in done or len(prompts) < num_streams:
                continue
            started_s = time.monotonic()
            if started_s + longest_s - began_s > options.limit_s:
                return
            yield part | measure(subject, prompts, num_streams, variants, turn)
            longest_s = max(longest_s, time.monotonic() - started_s)


def key_of(part: dict[str, object]) -> str:
    """What makes a part another one."""
    names = ("workload", "streams", "first", "prompts", "names", "max_tokens", "model")
    return json.dumps([part[name] for name in names])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--workloads", nargs="+", choices=tuple(WORKLOADS), default=list(WORKLOADS))
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--proposers", nargs="+", choices=PROPOSERS, default=list(LOOK_UPS))
    parser.add_argument("--draft-model")
    parser.add_argument("--exit-layer", type=int, default=15)
    parser.add_argument("--fixed", type=int, nargs="*", default=[2, 3, 7, 15])
    parser.add_argument("--no-window", action="store_true", help="leave the chapter's rule out")
    parser.add_argument("--max-drafts", type=int, default=15, help="of the adaptive policy")
    parser.add_argument("--first", type=int, default=0, help="prompts of each workload to pass over")
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--part", type=int, default=16)
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--state", type=Path, help="file that parts are kept in")
    parser.add_argument("--limit-s", type=float, default=math.inf)
    parser.add_argument("--matrix", action="store_true", help="what the documentation shows")
    parser.add_argument("--minutes", type=float, help="the same as --limit-s")
    parser.add_argument("--report", type=Path, help="print the tables of such a file and measure nothing")
    options = parser.parse_args()
    if options.minutes is not None:
        options.limit_s = 60 * options.minutes
    if options.matrix:
        options.draft_model = options.draft_model or f"{FIRST_LAYERS}6"
    if "draft" in options.proposers and options.draft_model is None:
        parser.error("the proposer draft needs --draft-model")
    kept = options.report or options.state
    parts = read_parts(kept) if kept and kept.exists() else []
    if options.report is None:
        if options.data is None:
            parser.error("--data is missing")
        for part in measure_parts(options, parts):
            parts.append(part)
            if options.state:
                with options.state.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(part) + "\n")
            print(brief(part), file=sys.stderr, flush=True)
    print_report(parts)


if __name__ == "__main__":
    main()
