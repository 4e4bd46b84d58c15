"""Inference casts (the chapter's automatic mixed precision): which ops may read less than float32, and which must not.

One table of lists, RULES, and one of policies, POLICIES; `passes/cast_inputs.py` writes them into an op list. Ops
compute and write float32 whatever they read: a low precision is a matter of inputs, as on tensor cores. How weights are
stored is the file's matter and how keys and values are is the KV format's; neither is decided here.
"""

from dataclasses import dataclass

from vivace.graph.ops import (
    Add,
    AddRmsNorm,
    Attention,
    Embed,
    FusedLinear,
    GatedActivation,
    Linear,
    Op,
    RmsNorm,
    Rope,
    SelectRows,
)
from vivace.types.errors import ConfigError


@dataclass(frozen=True, slots=True)
class CastRule:
    """On which list the inputs of an op stand, and why.

    Attributes:
        what: the op, in words.
        ops: its kinds.
        is_allowed: whether a policy may lower its inputs.
        why: the reason.
    """

    what: str
    ops: tuple[type[Op], ...]
    is_allowed: bool
    why: str


RULES = (
    CastRule("matrix product", (Linear, FusedLinear), True, "long sums in which errors of single inputs cancel"),
    CastRule(
        "norm", (RmsNorm, AddRmsNorm), False, "squares of outliers leave float16, and one factor scales a whole row"
    ),
    CastRule("rotary", (Rope,), False, "angles grow with the position, beyond what 8 significant bits tell apart"),
    CastRule(
        "attention", (Attention,), False, "softmax turns differences of scores into ratios; see KV formats for storage"
    ),
    CastRule("gate", (GatedActivation,), False, "a product of two activations, whose outliers the next matrix sees"),
    CastRule("residual sum", (Add,), False, "what layers add is small beside the sum and would be rounded away"),
    CastRule("choice of rows", (SelectRows,), False, "moves numbers and computes nothing"),
    CastRule("embedding", (Embed,), False, "reads no activations"),
)
"""Every kind of op on one of the two lists."""


@dataclass(frozen=True, slots=True)
class CastPolicy:
    """Precisions (rows of numerics.roundings.ROUNDINGS) that ops read their inputs in.

    Attributes:
        over_floats: of allowed ops over weights in F32, F16 or BF16.
        over_codes: of allowed ops over quantised weights.
        over_bfloats: of allowed ops over weights in BF16; None: as over_floats.
        denied: of all others; anything but f32 here is an experiment.
    """

    over_floats: str
    over_codes: str
    denied: str = "f32"
    over_bfloats: str | None = None


POLICIES = {
    "f32": CastPolicy("f32", "f32"),
    "native-12": CastPolicy("f32", "int12"),
    "native-8": CastPolicy("f32", "int8"),
    "native-8-bf16": CastPolicy("f32", "int8", over_bfloats="bf16"),
    "native-32": CastPolicy("f32", "f32"),
    "native-turned": CastPolicy("int8-turned", "int8-turned"),
    "amp": CastPolicy("bf16", "bf16"),
    "amp-f16": CastPolicy("f16", "f16"),
    "everything-bf16": CastPolicy("bf16", "bf16", denied="bf16"),
    "everything-f16": CastPolicy("f16", "f16", denied="f16"),
}
"""The native ones are what the C++ core does (--activation-bits 12, 32, 8, and 8 on a machine that multiplies bfloat16
numbers in pairs; native-turned for linears that --weights int8 requantises); the others run on the reference executor.
"""

_RULE_OF = {kind: rule for rule in RULES for kind in rule.ops}


def native_policy(activation_bits: int, *, has_pairs: bool = False) -> CastPolicy:
    """What the native core does at `activation_bits` (12, 8 or fewer, or 32).

    Args:
        activation_bits: of inputs of quantised linears.
        has_pairs: the kernel table multiplies bfloat16 numbers in pairs, twice as fast as float32 ones. Eight bits then
            mean eight significant bits for inputs of BF16 weights too; twelve leave those in float32, since two
            bfloat16 numbers for each would be no faster.
    """
    if activation_bits > 8:
        return POLICIES[f"native-{activation_bits}"]
    return POLICIES["native-8-bf16" if has_pairs else "native-8"]


def find_policy(name: str) -> CastPolicy:
    """A row of POLICIES.

    Raises:
        ConfigError: there is no such policy.
    """
    if name not in POLICIES:
        raise ConfigError(f"There is no cast policy {name!r}.", f"Known are {', '.join(POLICIES)}.")
    return POLICIES[name]


def rule_of(op: Op) -> CastRule:
    """The rule of an op's kind."""
    return _RULE_OF[type(op)]


def input_precision(op: Op, policy: CastPolicy, *, over_codes: bool, over_bfloats: bool = False) -> str:
    """What an op reads its inputs in under a policy; its weights are quantised, in BF16 (`over_bfloats`) or floats."""
    if not rule_of(op).is_allowed:
        return policy.denied
    if over_bfloats and policy.over_bfloats:
        return policy.over_bfloats
    return policy.over_codes if over_codes else policy.over_floats
