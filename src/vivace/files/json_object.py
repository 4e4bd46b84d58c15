"""Typed questions to a JSON object from a model folder; every answer is checked, every error names file and field."""

import json
from collections.abc import Mapping
from pathlib import Path

from vivace.types.errors import ModelFileError

MAX_BYTES = 1 << 26  # of a settings file; the largest in use have some hundred kilobytes


class JsonObject:
    """A JSON object with a name for messages. A field that is null counts as missing.

    Args:
        values: the object.
        source: the file it came from, as users know it.
        defaults: values of fields that are missing.
    """

    def __init__(self, values: Mapping[str, object], source: str, defaults: Mapping[str, object] | None = None) -> None:
        self._values = values
        self._defaults = defaults or {}
        self.source = source

    def get(self, key: str) -> object:
        """The value or its default; None when there is neither."""
        value = self._values.get(key)
        return self._defaults.get(key) if value is None else value

    def has(self, key: str) -> bool:
        """Whether there is a value other than null, or a default."""
        return self.get(key) is not None

    def is_null(self, key: str) -> bool:
        """Whether the field is written down as null, which may mean something else than leaving it out."""
        return key in self._values and self._values[key] is None

    def integer(self, key: str, default: int | None = None) -> int:
        """A whole number."""
        value = self._or(key, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._wrong(key, "a whole number")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A number."""
        value = self._or(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e300:
            raise self._wrong(key, "a number")
        return float(value)

    def flag(self, key: str, default: bool = False) -> bool:
        """True or false."""
        value = self._or(key, default)
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        """A string."""
        value = self._or(key, default)
        if not isinstance(value, str):
            raise self._wrong(key, "a string")
        return value

    def texts(self, key: str) -> list[str]:
        """A list of strings; [] when missing."""
        value = self._or(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._wrong(key, "a list of strings")
        return value

    def inner(self, key: str) -> "JsonObject":
        """An object within; empty when missing."""
        value = self._or(key, {})
        if not isinstance(value, dict):
            raise self._wrong(key, "an object")
        return JsonObject(value, f"{self.source}, {key}")

    def as_dict(self) -> dict[str, object]:
        """All fields, defaults left out."""
        return dict(self._values)

    def _or(self, key: str, default: object) -> object:
        value = self.get(key)
        value = default if value is None else value
        if value is None:
            raise ModelFileError(f"{self.source} lacks the field {key!r}.", "Get the file again.")
        return value

    def _wrong(self, key: str, wanted: str) -> ModelFileError:
        return ModelFileError(f"{self.source}: the field {key!r} is not {wanted}.", "Get the file again.")


def read_json_object(path: Path) -> JsonObject:
    """Read a file that holds one JSON object.

    Raises:
        ModelFileError: it is missing, too large, no JSON, or JSON of another kind.
    """
    text = read_text(path, MAX_BYTES)
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise ModelFileError(f"{path} is not valid JSON: {error.msg} at {where}.", "Get it again.") from None
    except (RecursionError, ValueError):
        raise ModelFileError(f"{path} is JSON of an impossible kind.", "Get it again.") from None
    if not isinstance(value, dict):
        raise ModelFileError(f"{path} does not hold a JSON object.", "Get it again.")
    return JsonObject(value, str(path))


def read_text(path: Path, max_bytes: int) -> str:
    """Read a UTF-8 file of at most `max_bytes`.

    Raises:
        ModelFileError: it is missing, too large, not readable or not UTF-8.
    """
    try:
        if path.stat().st_size > max_bytes:
            raise ModelFileError(f"{path} is larger than {max_bytes} bytes.", "Get it again.")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ModelFileError(f"{path} does not exist.", "The folder is incomplete; get it again.") from None
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}.", "Check its permissions.") from None
    except UnicodeDecodeError:
        raise ModelFileError(f"{path} is not UTF-8 text.", "Get it again.") from None
