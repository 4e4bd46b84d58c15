"""Guesses what a file that is no model really is, so that an error can say it."""

from collections.abc import Callable

_BEGINNINGS: tuple[tuple[bytes, str], ...] = (
    (b"PK\x03\x04", "a zip archive (a wheel, or a PyTorch checkpoint)"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself"),
    (b"\x80\x02", "a Python pickle (an old PyTorch checkpoint)"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"\x28\xb5\x2f\xfd", "a zstandard archive"),
    (b"lmgg", "a model in the older GGML format"),
    (b"fmgg", "a model in the older GGMF format"),
    (b"tjgg", "a model in the older GGJT format"),
    (b"FUGG", "a byte-swapped GGUF file"),
    (b"\x89HDF", "an HDF5 file"),
    (b"%PDF", "a PDF document"),
    (b"\x7fELF", "a program"),
)


def _stripped(start: bytes) -> bytes:
    return start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()


_GUESSES: tuple[tuple[Callable[[bytes], bool], str], ...] = (
    (
        lambda start: _stripped(start).startswith((b"<!doctype", b"<html", b"<?xml")),
        "an HTML page (perhaps a sign-in or error page that was saved instead of the model)",
    ),
    (
        lambda start: start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 1 << 32,
        "a safetensors file (give the folder it lies in, with its config.json)",
    ),
    (lambda start: _stripped(start).startswith((b"{", b"[")), "JSON text"),
    (lambda start: not start.strip(b"\0"), "a run of zero bytes (an interrupted download)"),
    (lambda start: all(32 <= byte < 127 or byte in b"\t\r\n" for byte in start), "plain text"),
)


def describe_content(start: bytes) -> str:
    """Say what a file looks like.

    Args:
        start: its first bytes; a few hundred are enough.

    Returns:
        A phrase such as "a zip archive", for use after "it looks like".
    """
    named = (name for beginning, name in _BEGINNINGS if start.startswith(beginning))
    guessed = (name for looks_so, name in _GUESSES if looks_so(start))
    return next(named, None) or next(guessed, f"unknown binary data (it starts with {start[:4].hex(' ')})")
