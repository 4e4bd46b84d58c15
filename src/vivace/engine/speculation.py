"""How an engine guesses ahead: its options, and how proposers, models and costs are put together from them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vivace.cache.policies import parse_policy
from vivace.speculate.proposers import CHOICES
from vivace.types.errors import ConfigError
from vivace.types.step import Executor

if TYPE_CHECKING:
    from vivace.files.open import LoadedModel
    from vivace.speculate.drafter import ModelDrafter
    from vivace.speculate.speculator import EngineSpeculator
    from vivace.text.tokenizer import Tokenizer
    from vivace.types.model import ModelSpec

DEFAULT_DRAFTS = 15
DRAFT_ROWS = 256  # of a pass: streams, and what a draft model still has to catch up with
TRIAL_TEXT = "Once upon a time there was"  # what guesses are tried on begins so

OpenDraft = Callable[["LoadedModel"], Executor]


@dataclass(frozen=True, slots=True)
class SpeculationOptions:
    """Settings of guessing ahead; none of them changes a text.

    Args:
        speculate: who guesses, a row of speculate.proposers.CHOICES.
        draft_model: a smaller model of the same vocabulary that guesses: a catalogue name, a path or a hub id.
        exit_layer: after how many layers the model leaves off to guess for itself; None: measured at the start.
        max_drafts: most guesses of one answer in a step, 1 to 16.
    """

    speculate: str = "off"
    draft_model: str | None = None
    exit_layer: int | None = None
    max_drafts: int = DEFAULT_DRAFTS

    def check_speculation(self) -> None:
        """Refuse what can never work.

        Raises:
            ConfigError: an unknown name, a draft model or an exit that nobody uses, or numbers out of range.
        """
        if self.speculate not in CHOICES:
            raise ConfigError(f"There is no speculation {self.speculate!r}.", f"Known are: {', '.join(CHOICES)}.")
        if self.speculate == "draft" and not self.draft_model:
            raise ConfigError("Speculation by a draft model has no model.", "Name one with draft_model.")
        for name, given, users in (
            ("draft_model", self.draft_model, ("draft", "auto")),
            ("exit_layer", self.exit_layer, ("self", "auto")),
        ):
            if given is not None and self.speculate not in users:
                raise ConfigError(
                    f"{name} is {given!r}, and speculation {self.speculate!r} has no use for it.",
                    f"Set speculate to {' or '.join(users)}, or leave {name} out.",
                )
        for name, number, most in (("exit_layer", self.exit_layer, None), ("max_drafts", self.max_drafts, 16)):
            if number is None:
                continue
            is_number = isinstance(number, int) and not isinstance(number, bool)
            if not is_number or number < 1 or (most is not None and number > most):
                limits = "at least 1" if most is None else f"1 to {most}"
                raise ConfigError(f"{name} is {number!r}.", f"Give a whole number, {limits}.")

    def proposers(self) -> tuple[str, ...]:
        """The rows of PROPOSERS that are asked, cheapest first."""
        names = CHOICES[self.speculate]
        if self.speculate == "auto":
            names += ("draft",) * (self.draft_model is not None) + ("self",) * (self.exit_layer is not None)
        return names


@dataclass(frozen=True, slots=True)
class SpeculationSite:
    """What of an engine being built a speculator needs.

    Args:
        loaded: the target.
        tokenizer: of the target.
        executor: of the target; nobody else uses it yet.
        kv_policy: of the target, as in `parse_policy`.
        open_draft: makes an executor for a draft model.
    """

    loaded: "LoadedModel"
    tokenizer: "Tokenizer"
    executor: Executor
    kv_policy: str
    open_draft: OpenDraft


def build_speculator(options: SpeculationOptions, site: SpeculationSite) -> "EngineSpeculator | None":
    """A speculator with measured costs; None where nobody guesses.

    Raises:
        VivaceError: there is no such draft model, it has another vocabulary, or the target has no such layer.
    """
    proposers = options.proposers()
    if not proposers:
        return None
    from vivace.speculate.config import SpeculationConfig
    from vivace.speculate.measure_costs import measure_at_start
    from vivace.speculate.speculator import EngineSpeculator

    tokenizer = site.tokenizer

    def decode(ids: Sequence[int]) -> str:
        return tokenizer.decode([token_id for token_id in ids if token_id < tokenizer.vocab_size])

    times = measure_at_start(site.executor)
    drafters = []
    if "draft" in proposers:
        drafters.append(_draft(str(options.draft_model), site))
    if "self" in proposers:
        drafters.append(_early_exit(options.exit_layer, site, times.ms))
    speculator = EngineSpeculator(SpeculationConfig(proposers, max_drafts=options.max_drafts), decode, drafters)
    speculator.assume_costs(times)
    return speculator


def _draft(name: str, site: SpeculationSite) -> "ModelDrafter":
    from vivace.files.catalogue import resolve
    from vivace.files.open import open_model
    from vivace.speculate.draft_memory import OwnMemory
    from vivace.speculate.drafter import ModelDrafter
    from vivace.speculate.measure_costs import measure_at_start
    from vivace.speculate.trial import acceptance_of, write_trial

    draft = open_model(resolve(name))
    try:
        check_vocabulary(draft, site.loaded.spec, site.tokenizer)
        executor = site.open_draft(draft)
    except BaseException:
        draft.close()
        raise
    acceptance = acceptance_of(executor, write_trial(site.executor, site.tokenizer.encode(TRIAL_TEXT)))
    return ModelDrafter(
        "draft",
        executor,
        OwnMemory(executor.num_blocks),
        costs_ms=measure_at_start(executor).ms,
        acceptance=acceptance,
    )


def check_vocabulary(draft: "LoadedModel", target: "ModelSpec", ours: "Tokenizer") -> None:
    """A draft is of use only if its tokens are those of the target and its tokenizer.

    Raises:
        ConfigError: they are not.
    """
    from vivace.text.build import build_tokenizer

    hint = "Name a draft model that was made with the same tokenizer."
    if draft.spec.vocab_size != target.vocab_size or draft.vocabulary is None:
        raise ConfigError(
            f"The draft model {draft.name} has {draft.spec.vocab_size} tokens and the model {target.vocab_size}.", hint
        )
    theirs = build_tokenizer(draft.vocabulary)
    numbers = range(min(theirs.vocab_size, ours.vocab_size))
    if theirs.vocab_size != ours.vocab_size or any(
        theirs.visible_bytes(number, skip_special=False) != ours.visible_bytes(number, skip_special=False)
        for number in numbers
    ):
        raise ConfigError(f"The draft model {draft.name} has another vocabulary than the model.", hint)


def _early_exit(layer: int | None, site: SpeculationSite, costs_ms: dict[int, float]) -> "ModelDrafter":
    from vivace.speculate.draft_memory import TargetMemory
    from vivace.speculate.drafter import ModelDrafter
    from vivace.speculate.measure_costs import measure_at_start
    from vivace.speculate.trial import ExitingExecutor, candidate_layers, choose_exit, measure_exits, write_trial

    executor, num_layers = site.executor, site.loaded.spec.num_layers
    if not hasattr(executor, "early_exit") or num_layers < 2:
        raise ConfigError("This model or executor has no early exit.", "Leave speculation to another proposer.")
    exiting: ExitingExecutor = executor  # type: ignore[assignment]
    if layer is not None and layer >= num_layers:
        raise ConfigError(
            f"exit_layer is {layer}, and the model has {num_layers} layers.", f"Give 1 to {num_layers - 1}."
        )
    trial = write_trial(executor, site.tokenizer.encode(TRIAL_TEXT))
    layers = candidate_layers(num_layers) if layer is None else (layer,)
    best = choose_exit(measure_exits(exiting, layers, trial, costs_ms or {1: 1.0}))
    early = exiting.early_exit(best.num_layers, DRAFT_ROWS)
    return ModelDrafter(
        "self",
        early,
        TargetMemory(),
        policy=parse_policy(site.kv_policy),
        costs_ms=measure_at_start(early).ms,
        acceptance=best.acceptance,
    )
