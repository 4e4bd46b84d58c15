"""From a model's name to a service that answers: the one place where all rooms of the engine are put together.

Heavy modules are imported when they are needed and not before, so that a command that only prints help starts at once.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vivace.cache.policies import parse_policy
from vivace.engine.kv_memory import KvBlocks, LocalDemand, choose_blocks, local_reach
from vivace.engine.long_chat import LongChat, choose_reach
from vivace.engine.precision import check_precision, parse_precision
from vivace.engine.serving_config import ServingConfig
from vivace.engine.speculation import SpeculationSite, build_speculator
from vivace.types.errors import ConfigError, TokenizerError
from vivace.types.input_scheme import PLAIN_INPUTS, InputScheme
from vivace.types.kv import DEFAULT_KV_FORMAT, KV_FORMAT_NAMES
from vivace.types.run_settings import FILE_WEIGHTS, check_weight_format, choose_inputs
from vivace.types.step import BLOCK_SIZE, Executor, LocalLayers

if TYPE_CHECKING:
    from vivace.engine.service import ModelService
    from vivace.files.open import LoadedModel
    from vivace.graph.graph import Graph
    from vivace.schedule.config import SchedulerConfig
    from vivace.text.tokenizer import Tokenizer
    from vivace.types.weights import WeightSource


@dataclass(frozen=True, slots=True)
class EngineConfig(ServingConfig):
    """Settings of an engine, with those of ServingConfig. None means: chosen from the model and the machine.

    Args:
        context_length: most tokens of prompt and answer together; at most the model's own.
        max_batch_tokens: rows of one step over all sequences.
        max_sequences: sequences that run at the same time; below max_batch_tokens.
        kv_memory_bytes: memory for keys and values.
        num_blocks: the same as a number of blocks of 16 tokens; it wins over kv_memory_bytes.
        num_threads: threads that compute.
        activation_bits: 12, or 8: about a third quicker on prompts, and a little further from the unquantised model
            (docs/performance.md has both figures). None: as the model file asks, else 12.
        kv_format: how keys and values are stored: a row of KV_FORMATS (`numerics.kv_formats`), or one a layer. None:
            as the model file asks, else f16; bf16 with 8-bit activations or int8 weights if the machine has it.
        weights: "file", or "int8": linears are requantised at load to the codes that run quickest on prompts and many
            streams (docs/performance.md has speed and quality).
        executor: a row of EXECUTORS.
        prefix_cache: keep the keys and values of finished requests while there is room, and find them again.
        kv_policy: which keys a row sees, as in `full`, `window:1024:4` or `adaptive` (cache/policies.py); the rest of a
            long sequence's blocks go back to the pool.
    """

    context_length: int | None = None
    max_batch_tokens: int = 512
    max_sequences: int = 64
    kv_memory_bytes: int | None = None
    num_blocks: int | None = None
    num_threads: int | None = None
    activation_bits: int | None = None
    kv_format: str | tuple[str, ...] | None = None
    executor: str = "native"
    prefix_cache: bool = True
    kv_policy: str = "full"
    weights: str = FILE_WEIGHTS

    def __post_init__(self) -> None:
        for name in ("context_length", "max_batch_tokens", "max_sequences", "num_blocks", "num_threads"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ConfigError(f"{name} is {value!r}.", "Give a whole number of at least 1.")
        self.check_serving()
        check_weight_format(self.weights)
        parse_policy(self.kv_policy)
        if self.executor not in EXECUTORS:
            raise ConfigError(f"There is no executor {self.executor!r}.", f"Known are: {', '.join(EXECUTORS)}.")


@dataclass(frozen=True, slots=True)
class ExecutorSize:
    """What an executor is built for."""

    blocks: KvBlocks
    max_rows: int
    num_threads: int | None
    activation_bits: int
    kv_format: str | tuple[str, ...]
    weight_format: str = FILE_WEIGHTS
    inputs: InputScheme = PLAIN_INPUTS


def _native(graph: "Graph", weights: "WeightSource", size: ExecutorSize) -> Executor:
    from vivace.execute.native import NativeExecutor

    return NativeExecutor(
        graph,
        weights,
        num_blocks=size.blocks.num_blocks,
        num_local_blocks=size.blocks.num_local,
        max_rows=size.max_rows,
        num_threads=size.num_threads,
        activation_bits=size.activation_bits,
        kv_format=size.kv_format,
        weight_format=size.weight_format,
        inputs=size.inputs,
    )


def _reference(graph: "Graph", weights: "WeightSource", size: ExecutorSize) -> Executor:
    from vivace.execute.reference import ReferenceExecutor

    kv_format = None if size.kv_format == DEFAULT_KV_FORMAT else size.kv_format  # the oracle keeps float32 then
    return ReferenceExecutor(
        graph,
        weights,
        num_blocks=size.blocks.num_blocks,
        num_local_blocks=size.blocks.num_local,
        max_rows=size.max_rows,
        kv_format=kv_format,
    )


EXECUTORS: dict[str, Callable[["Graph", "WeightSource", ExecutorSize], Executor]] = {
    "native": _native,
    "reference": _reference,
}


def build_service(model: str | None = None, config: EngineConfig | None = None) -> "ModelService":
    """Load a model and start its engine.

    Args:
        model: a catalogue name, a path or a hub id; None: the default model. Downloaded first if it has to be.
        config: settings; the defaults suit one machine with a few readers.

    Raises:
        VivaceError: there is no such model, it cannot be read, or a setting can never work.
    """
    from vivace.files.catalogue import resolve
    from vivace.files.catalogue_rows import DEFAULT_MODEL, ROWS
    from vivace.files.open import open_model

    name = model or DEFAULT_MODEL
    loaded = open_model(resolve(name))
    try:
        return serve_loaded(loaded, config or EngineConfig(), name=name if name in ROWS else loaded.name)
    except BaseException:
        loaded.close()
        raise


def serve_loaded(loaded: "LoadedModel", config: EngineConfig, *, name: str) -> "ModelService":
    """Start an engine for a model that is open; closing the service closes the model.

    Raises:
        VivaceError: the model has no tokenizer, or a setting can never work.
    """
    from vivace.engine.core import Engine
    from vivace.engine.loop import EngineLoop
    from vivace.engine.service import ModelService
    from vivace.engine.tier_build import build_tiers
    from vivace.graph.build import build_graph
    from vivace.text.build import build_template, build_tokenizer

    vocabulary = loaded.vocabulary
    if vocabulary is None:
        raise TokenizerError(f"{loaded.path} has no tokenizer.", "Use a model file that comes with one.")
    tokenizer = build_tokenizer(vocabulary)
    template = build_template(vocabulary, tokenizer)
    context_length, blocks = choose_sizes(loaded, config)
    activation_bits, kv_format = choose_precision(loaded, config)
    _, inputs = choose_inputs(loaded.run_settings, config.activation_bits)
    size = ExecutorSize(
        blocks, config.max_batch_tokens, config.num_threads, activation_bits, kv_format, config.weights, inputs
    )
    scheduler_config = _scheduler_config(config, context_length, tokenizer)
    executor = EXECUTORS[config.executor](build_graph(loaded.spec), loaded.weights, size)

    def open_draft(draft: "LoadedModel") -> Executor:
        kept_as = kv_format if kv_format in KV_FORMAT_NAMES else DEFAULT_KV_FORMAT  # runs of layers are the model's own
        whole = replace(size, blocks=KvBlocks(blocks.num_blocks), kv_format=kept_as, inputs=PLAIN_INPUTS)
        return EXECUTORS[config.executor](build_graph(draft.spec), draft.weights, whole)

    site = SpeculationSite(loaded, tokenizer, executor, config.kv_policy, open_draft)
    speculator = build_speculator(config, site)
    settings = (kv_format, activation_bits, config.kv_policy, config.precision, config.weights)
    tiers, sessions = build_tiers(config.tiers, loaded.path, executor, settings)
    local = None if blocks.num_local is None else LocalLayers(blocks.num_local, *local_reach(loaded.spec, kv_format))
    check_precision(config.precision, loaded.weights)
    precision = parse_precision(config.precision)
    engine = Engine(executor, scheduler_config, speculator=speculator, tiers=tiers, local=local, precision=precision)
    slots = blocks.num_blocks * BLOCK_SIZE
    reach = choose_reach(context_length, loaded.spec.context_length, slots, config.max_batch_tokens)
    return ModelService(
        name,
        loaded.spec,
        tokenizer,
        template,
        EngineLoop(engine),
        context_length=context_length,
        long_chat=LongChat(config.long_chat, reach),
        sessions=sessions,
    )


def choose_precision(loaded: "LoadedModel", config: EngineConfig) -> tuple[int, str | tuple[str, ...]]:
    """Bits of activations and how keys and values are stored: what is asked, else what the file asks, else default."""
    from vivace.execute.native import default_kv_format

    bits = choose_inputs(loaded.run_settings, config.activation_bits)[0]
    default = DEFAULT_KV_FORMAT
    if config.executor == "native":  # a file that asks for 8 bits was measured with DEFAULT_KV_FORMAT
        default = default_kv_format(config.activation_bits, config.weights)
    return bits, config.kv_format or loaded.run_settings.kv_format or default


def choose_sizes(loaded: "LoadedModel", config: EngineConfig) -> tuple[int, KvBlocks]:
    """Context length and KV blocks for a model on this machine.

    Raises:
        ConfigError: the context is longer than the model's, or longer than the KV memory holds.
    """
    spec = loaded.spec
    wanted = config.context_length or spec.context_length
    if wanted > spec.context_length:
        raise ConfigError(
            f"A context of {wanted} tokens is asked for, and the model was trained for {spec.context_length}.",
            f"Ask for at most {spec.context_length}.",
        )
    demand = _local_demand(config)
    if config.num_blocks is None:
        blocks = choose_blocks(spec, wanted, config.kv_memory_bytes, choose_precision(loaded, config)[1], demand)
    else:
        window, first = local_reach(spec, choose_precision(loaded, config)[1])
        num_local = min(config.num_blocks, demand.num_blocks(window + first)) if window and demand else None
        blocks = KvBlocks(config.num_blocks, num_local)
    held = blocks.num_blocks * BLOCK_SIZE
    if held < wanted and config.context_length is not None:
        raise ConfigError(
            f"The KV memory holds {held} tokens, less than the context of {wanted} tokens.",
            "Ask for a shorter context or allow more KV memory.",
        )
    return min(wanted, held), blocks


def _local_demand(config: EngineConfig) -> LocalDemand | None:
    """None where a block has to hold all layers: for early exits, which read a block through one table."""
    if "self" in config.proposers():
        return None
    return LocalDemand(config.max_sequences, config.max_batch_tokens)


def _scheduler_config(config: EngineConfig, context_length: int, tokenizer: "Tokenizer") -> "SchedulerConfig":
    from vivace.schedule.config import SchedulerConfig

    return SchedulerConfig(
        max_batch_tokens=config.max_batch_tokens,
        max_sequences=config.max_sequences,
        max_chunk_tokens=config.max_batch_tokens,
        context_length=context_length,
        eos_ids=frozenset(tokenizer.eos_ids),
        prefix_cache=config.prefix_cache,
        order=config.order_config(),
        queue=config.queue,
        eviction=config.eviction,
        policy=parse_policy(config.kv_policy),
    )
