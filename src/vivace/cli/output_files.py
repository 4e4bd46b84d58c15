"""Files that a command writes when its work is done."""

import argparse
import os
from pathlib import Path


def output_file(text: str) -> Path:
    """The path of a file to write, refused before the work where it could not be written after it.

    Raises:
        ArgumentTypeError: it names a folder, or its folder is not there.
    """
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a folder. Name a file")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"The folder {path.parent} is not there. Make it, or name another")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text} may not be written. Choose another name")
    return path
