"""What a compression does, as data: which format each matrix gets, and which methods choose its codes.

A recipe is one of the PRESETS or a YAML file (`recipe_file.py`). Every name in it is a row of a table elsewhere:
formats of `containers.py`, scale rules of `scales.py`, methods of `methods.py`.
"""

from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from vivace.compress.activation_schemes import DEPLOYED, ActivationScheme, find_kernel
from vivace.compress.methods import FOLDS, ROUNDINGS
from vivace.compress.scales import SCALE_RULES
from vivace.types.errors import ConfigError
from vivace.types.kv import KV_FORMAT_NAMES
from vivace.types.run_settings import RunSettings
from vivace.types.weights import TensorFormat

ROTATION = "hadamard"
FOLD_NAMES = (ROTATION, *FOLDS)
THIRDS = ("first", "middle", "last")


@dataclass(frozen=True, slots=True)
class TensorRule:
    """What happens to the matrices whose name matches.

    Attributes:
        match: a pattern with * over vivace's names (`layers.3.mlp.down.weight`, `embed.weight`, `lm_head.weight`).
        format: the stored format; "KEEP" leaves the source's bytes as they are.
        bits: codes of fewer bits than the format has, or None.
        group_size: columns that share a scale, a multiple of the format's block; None is the block; 0 the whole row.
        group_rows: rows that share a scale as well; 0: all of them, so that with group_size 0 a tensor has one.
        third: only layers of the "first", "middle" or "last" third.
        zero_point: of formats with a minimum: a whole number of steps, so that 0 is a code's own.
        rounding: a name of ROUNDINGS, or None: the recipe's.
        rows: only the first so many rows, of an embedding or head; the next rule that matches decides over the others.
    """

    match: str
    format: TensorFormat | None
    bits: int | None = None
    group_size: int | None = None
    third: str | None = None
    zero_point: bool = False
    rounding: str | None = None
    group_rows: int = 1
    rows: int | None = None

    def applies(self, name: str, num_layers: int) -> bool:
        """Whether a matrix is this rule's."""
        if not fnmatchcase(name, self.match):
            return False
        if self.third is None:
            return True
        if not name.startswith("layers."):
            return False
        layer = int(name.split(".")[1])
        return THIRDS[min(3 * layer // num_layers, 2)] == self.third


@dataclass(frozen=True, slots=True)
class CalibrationSettings:
    """How much text a method sees: `samples` windows of `tokens` tokens each, drawn with `seed`."""

    samples: int = 16
    tokens: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.samples <= 5000 or not 16 <= self.tokens <= 8192:
            raise ConfigError(
                f"Calibration on {self.samples} samples of {self.tokens} tokens.", "Use 1 to 5000 of 16 to 8192 tokens."
            )


@dataclass(frozen=True, slots=True)
class TuningSettings:
    """End-to-end tuning of scales after rounding (`tuning.py`); it needs torch.

    Attributes:
        samples: windows, as long as those of calibration and drawn apart from them; an eighth is held out.
        epochs: times that the others are read, at most.
        rate: the highest step of Adam, as a share of a scale.
        norms: whether norm weights are tuned as well.
        optional: without torch the recipe goes without, and that is said; else it is refused.
    """

    samples: int = 64
    epochs: int = 2
    rate: float = 1e-3
    norms: bool = True
    optional: bool = False

    def __post_init__(self) -> None:
        if not 2 <= self.samples <= 5000 or not 1 <= self.epochs <= 100 or not 0 < self.rate <= 0.1:
            raise ConfigError(
                f"Tuning on {self.samples} samples, {self.epochs} times, at a rate of {self.rate:g}.",
                "Use 2 to 5000 samples, 1 to 100 epochs and a rate above 0, at most 0.1.",
            )


@dataclass(frozen=True, slots=True)
class Recipe:
    """A whole compression. The first rule that applies to a matrix decides; one that no rule matches is kept.

    Attributes:
        name: shown to people and written into the file.
        rules: in order.
        scales: a name of SCALE_RULES.
        folds: names of FOLD_NAMES, in the order they are done; the rotation, if any, is first.
        rounding: a name of ROUNDINGS.
        importance: whether errors are weighed by E[x^2] of the inputs when scales are chosen.
        act_order: see `gptq`.
        bias_correction: linears that have a bias take up the mean error of their outputs.
        drift_correction: matrices are moved so that behind rounded layers they put out what the source's do.
        tuning: scales are tuned end to end when all is rounded; None: they stay.
        calibration: the text that fold, gptq and importance need.
        activations: how the inputs of linears are quantised when the model runs; None: as the engine does by itself.
        clip_activations: cut the dynamic ranges of each linear's inputs by a share searched for (`clipping.py`).
        kv_format: how keys and values are stored when it runs, a name of KV_FORMAT_NAMES, or None likewise.
    """

    name: str
    rules: tuple[TensorRule, ...]
    scales: str = "mse"
    folds: tuple[str, ...] = ()
    rounding: str = "nearest"
    importance: bool = False
    act_order: bool = True
    bias_correction: bool = False
    drift_correction: bool = False
    tuning: TuningSettings | None = None
    calibration: CalibrationSettings = field(default_factory=CalibrationSettings)
    activations: ActivationScheme | None = None
    clip_activations: bool = False
    kv_format: str | None = None

    def __post_init__(self) -> None:
        for what, value, known in (
            ("scale rule", self.scales, tuple(SCALE_RULES)),
            *(("fold", fold, FOLD_NAMES) for fold in self.folds),
            *(("rounding", rounding, tuple(ROUNDINGS)) for rounding in self.roundings),
            ("KV format", self.kv_format, (None, *KV_FORMAT_NAMES)),
        ):
            if value not in known:
                raise ConfigError(
                    f"The recipe asks for the {what} {value!r}.", f"Choose one of {', '.join(filter(None, known))}."
                )
        if self.clip_activations and (self.activations is None or self.activations.mode == "static"):
            raise ConfigError(
                "clip_activations is for dynamic ranges of the recipe's activations.",
                "Give activations with mode: dynamic; static ranges are cut by their observer: percentile, mse or kl.",
            )
        if len(set(self.folds)) < len(self.folds) or ROTATION in self.folds[1:]:
            raise ConfigError(f"The folds {', '.join(self.folds)} cannot be done.", "Each once, hadamard first.")

    @property
    def run_settings(self) -> RunSettings:
        """What the file says about running it, before anything is known of inputs (`input_ranges.py`).

        Raises:
            ConfigError: no kernel runs the recipe's activations.
        """
        if self.activations is None:
            return RunSettings(None, self.kv_format)
        find_kernel(self.activations)
        return RunSettings(self.activations.bits, self.kv_format)

    @property
    def looks_at_inputs(self) -> bool:
        """Whether ranges or clips of inputs are found on calibration text, once weights are rounded."""
        return self.clip_activations or (self.activations is not None and self.activations.mode == "static")

    @property
    def reads_text(self) -> bool:
        """Whether there has to be calibration text."""
        return self.needs_calibration or self.looks_at_inputs

    @property
    def needs_gram(self) -> bool:
        """Whether any method wants the second moments of inputs."""
        folds = any(FOLDS[fold].needs_gram for fold in self.channel_folds)
        return folds or self.drift_correction or any(ROUNDINGS[rounding].needs_gram for rounding in self.roundings)

    @property
    def roundings(self) -> tuple[str, ...]:
        """The recipe's, and those of rules that have their own."""
        return (self.rounding, *(rule.rounding for rule in self.rules if rule.rounding is not None))

    @property
    def channel_folds(self) -> tuple[str, ...]:
        """The folds that scale channels."""
        return tuple(fold for fold in self.folds if fold != ROTATION)

    @property
    def needs_calibration(self) -> bool:
        """Whether any method looks at activations."""
        looks = self.importance or self.bias_correction or self.tuning is not None
        return bool(self.channel_folds) or self.needs_gram or looks

    def rules_of(self, name: str, num_layers: int) -> list[TensorRule]:
        """The rules that decide over a matrix: the first that applies, and the next where that is of some rows only.

        A head that no rule matches is the embedding's where a rotation makes one, or changes the one that is there.
        """
        found = []
        for rule in self.rules:
            if rule.applies(name, num_layers):
                found.append(rule)
                if rule.rows is None:
                    break
        if not found and name == "lm_head.weight" and ROTATION in self.folds:
            return self.rules_of("embed.weight", num_layers)
        return found


def _layers(format: TensorFormat, ends: TensorFormat = TensorFormat.Q8_0) -> tuple[TensorRule, ...]:
    """Embedding and head in `ends`, layers in `format`."""
    return TensorRule("embed.weight", ends), TensorRule("lm_head.weight", ends), TensorRule("layers.*", format)


def _chapter_rules() -> tuple[TensorRule, ...]:
    """Chapter 18.2.3: FP16 embedding and head, INT8 first and last thirds, INT4 middle."""
    return (
        TensorRule("embed.weight", TensorFormat.F16),
        TensorRule("lm_head.weight", TensorFormat.F16),
        TensorRule("layers.*", TensorFormat.Q8_0, third="first"),
        TensorRule("layers.*", TensorFormat.Q4_0, third="middle"),
        TensorRule("layers.*", TensorFormat.Q8_0, third="last"),
    )


FORMER_NAMES = {"int4-gptq": "int4"}
"""Names that recipes had before."""

PRESETS: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe("int8", _layers(TensorFormat.Q8_0)),
        Recipe("int8-small", _layers(TensorFormat.Q8_64, TensorFormat.Q8_64)),
        # AWQ and GPTQ together keep most at either width, on as much text as these have (docs/compression.md).
        Recipe("int4", _layers(TensorFormat.Q4_0), folds=("awq",), rounding="gptq", importance=True),
        Recipe(
            "int4-small",
            _layers(TensorFormat.Q4_0, TensorFormat.Q5_1),
            folds=("awq",),
            rounding="gptq",
            importance=True,
        ),
        Recipe("int4-awq", _layers(TensorFormat.Q4_0), folds=("awq",), importance=True),
        Recipe(
            "int4-best",
            _layers(TensorFormat.Q4_0),
            folds=("awq",),
            rounding="descent",
            importance=True,
            drift_correction=True,
            tuning=TuningSettings(optional=True),
        ),
        Recipe("int4-fast", _layers(TensorFormat.Q4_0)),
        Recipe("int4-nearest", _layers(TensorFormat.Q4_0), scales="minmax"),
        Recipe("int4-asymmetric", _layers(TensorFormat.Q4_1), folds=("awq",), importance=True),
        Recipe("int5", _layers(TensorFormat.Q5_0), folds=("awq",), importance=True),
        Recipe("w8a8", _layers(TensorFormat.Q8_0), activations=DEPLOYED),
        Recipe("w4a8", _layers(TensorFormat.Q4_0), folds=("awq",), importance=True, activations=DEPLOYED),
        Recipe("nested", _layers(TensorFormat.N8_0), folds=("awq",), importance=True),
        Recipe("chapter", _chapter_rules()),
    )
}
