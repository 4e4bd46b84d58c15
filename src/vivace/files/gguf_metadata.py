"""Typed questions to the metadata of a GGUF file; every answer is checked, every error names the key."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from vivace.files.gguf_values import MetadataValue, StringArray
from vivace.types.errors import ModelFileError


class GgufMetadata:
    """Reads keys, with `{arch}` standing for the architecture's name.

    Args:
        values: the metadata of a `GgufFile`.
        prefix: what `{arch}` stands for.
    """

    def __init__(self, values: Mapping[str, MetadataValue], prefix: str = "") -> None:
        self._values = values
        self._prefix = prefix

    def has(self, key: str) -> bool:
        """Whether the key is there."""
        return self._full(key) in self._values

    def text(self, key: str, default: str | None = None) -> str:
        """A string."""
        value = self._get(key, default)
        if not isinstance(value, str):
            raise self._wrong(key, "a string")
        return value

    def integer(self, key: str, default: int | None = None) -> int:
        """A whole number. An array of equal numbers, one a layer, counts as that number."""
        value = self._get(key, default)
        if isinstance(value, np.ndarray) and len(value) and value.dtype.kind in "iu" and (value == value[0]).all():
            value = value[0].item()
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._wrong(key, "one whole number")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A number."""
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(key, "a number")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false")
        return value

    def strings(self, key: str) -> list[str]:
        """An array of strings; [] when the key is missing."""
        if not self.has(key):
            return []
        value = self._values[self._full(key)]
        if not isinstance(value, StringArray):
            raise self._wrong(key, "an array of strings")
        return value.decode()

    def is_array(self, key: str) -> bool:
        """Whether the key is there and holds an array of numbers."""
        return isinstance(self._values.get(self._full(key)), np.ndarray)

    def numbers(self, key: str) -> NDArray[np.generic]:
        """An array of numbers or flags (as 0 and 1); empty when the key is missing."""
        value = self._values.get(self._full(key), np.empty(0))
        if not isinstance(value, np.ndarray):
            raise self._wrong(key, "an array of numbers")
        return value

    def _full(self, key: str) -> str:
        return key.replace("{arch}", self._prefix)

    def _get(self, key: str, default: MetadataValue | None) -> MetadataValue:
        value = self._values.get(self._full(key), default)
        if value is None:
            raise ModelFileError(f"The model file lacks the metadata key {self._full(key)}.", "Get the file again.")
        return value

    def _wrong(self, key: str, wanted: str) -> ModelFileError:
        return ModelFileError(f"The metadata key {self._full(key)} is not {wanted}.", "Get the file again.")
