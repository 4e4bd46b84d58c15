"""Names of the ways to store keys and values: what a command line needs to know of them without loading anything."""

KV_FORMAT_NAMES = ("f16", "bf16", "int8", "int8-int4", "int4")
"""Rows of `numerics.kv_formats.KV_FORMATS`, from the nearest to the smallest."""

DEFAULT_KV_FORMAT = "f16"
