"""How a command line names the ways to store keys and values."""

import argparse

from vivace.types.kv import KV_FORMAT_NAMES, check_kv_formats

KV_FORMAT_HELP = (
    f"how keys and values are stored: {', '.join(KV_FORMAT_NAMES)}, or runs of layers, as in f16:2,int4:*,f16:2"
)


def kv_formats(text: str) -> str:
    """One name for all layers, or runs of layers."""
    try:
        return check_kv_formats(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
