"""Names of the ways to store keys and values: what a command line needs to know of them without loading anything."""

KV_FORMAT_NAMES = ("f16", "bf16", "int8", "int8-int4", "int4", "int4+f16")
"""Rows of `numerics.kv_formats.KV_FORMATS`, from the nearest to the smallest, then what mixes two."""

DEFAULT_KV_FORMAT = "f16"


def check_kv_formats(choice: str) -> str:
    """A `--kv-format`: one name, or runs of layers (`numerics.kv_formats.spread`); ValueError for an unknown name."""
    unknown = [name for part in choice.split(",") if (name := part.partition(":")[0].strip()) not in KV_FORMAT_NAMES]
    if unknown:
        raise ValueError(f"there is no KV format {unknown[0]!r}; known are: {', '.join(KV_FORMAT_NAMES)}")
    return choice
