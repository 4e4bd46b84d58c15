"""Dynamic precision: which level of nested weights the rows of a step read (chapter 18.2.3).

By position a row's level is a function of its position alone, so that the text stays what it is however it is batched,
cut or cached. By load, battery or heat it is not: the same question may then be answered in other words, which is why
nothing of this is on unless it is asked for. Owns no weights; a switch is another array of numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vivace.telemetry.clock import Clock, now_ns
from vivace.types.errors import ConfigError
from vivace.types.precision import FULL, LEVEL_NAMES, LOW, MIXED
from vivace.types.weights import TensorFormat, WeightSource

CHAPTER_BANDS = ((0, FULL), (128, MIXED), (512, FULL))
"""Eight bits up to 128, mixed up to 512. The chapter then wants key layers in 16 bits; all eight bits of all layers are
the most that one nested copy holds, so that is what they get."""
_READ_EVERY_NS = 1_000_000_000  # sensors change slowly, and reading one takes longer than a switch may
_POWER = Path("/sys/class/power_supply")
_HEAT = Path("/sys/class/thermal")


@dataclass(frozen=True, slots=True)
class Bands:
    """Levels by position: pairs (first position, level), ascending from 0."""

    bands: tuple[tuple[int, int], ...] = CHAPTER_BANDS

    def levels(self, positions: NDArray[np.int32]) -> NDArray[np.int8]:
        """The level of each row, int8 (R,)."""
        starts = [start for start, _ in self.bands]
        table = np.array([level for _, level in self.bands], np.int8)
        return table[np.searchsorted(starts, positions, side="right") - 1]


@dataclass(frozen=True, slots=True)
class Sensor:
    """A number that rises as there is less to spend, and from where on levels fall.

    Args:
        read: (sequences in the step) -> the number.
        mixed_from: where MIXED begins; `low_from`: where LOW does.
        is_slow: it is read once a second, not every step.
        lacks: what the machine would have to have; "": it has it.
    """

    read: Callable[[int], float]
    mixed_from: float
    low_from: float
    is_slow: bool = True
    lacks: str = ""

    def level(self, num_sequences: int) -> int:
        """The highest level that rows may have now."""
        value = self.read(num_sequences)
        return LOW if value >= self.low_from else MIXED if value >= self.mixed_from else FULL


@dataclass(slots=True)
class PrecisionPolicy:
    """Levels by position under a ceiling of sensors.

    Args:
        bands: levels by position.
        sensors: the lowest of their levels caps all rows of a step.
        clock: tells when slow sensors are due.
    """

    bands: Bands
    sensors: tuple[Sensor, ...] = ()
    clock: Clock = now_ns
    _ceiling: int = field(default=FULL, init=False)
    _read_at: int | None = field(default=None, init=False)

    def levels(self, positions: NDArray[np.int32], num_sequences: int) -> NDArray[np.int8]:
        """The level of each row of a step with `num_sequences` sequences, int8 (R,)."""
        levels = self.bands.levels(positions)
        ceiling = self._measured(num_sequences)
        return levels if ceiling == FULL else np.minimum(levels, np.int8(ceiling))

    def _measured(self, num_sequences: int) -> int:
        slow = [sensor for sensor in self.sensors if sensor.is_slow]
        if slow:
            now = self.clock()
            if self._read_at is None or now - self._read_at >= _READ_EVERY_NS:
                self._read_at = now
                self._ceiling = min(sensor.level(num_sequences) for sensor in slow)
        quick = [sensor.level(num_sequences) for sensor in self.sensors if not sensor.is_slow]
        return min([self._ceiling, *quick])


def _load(num_sequences: int) -> float:
    return float(num_sequences)


def battery_used(_num_sequences: int, folder: Path = _POWER) -> float:
    """Percent of the battery that is gone; 0 on mains or where there is none."""
    used = 0.0
    for supply in _batteries(folder):
        if _text(supply / "status") == "Discharging":
            used = max(used, 100.0 - _number(supply / "capacity", 100.0))
    return used


def hottest_celsius(_num_sequences: int, folder: Path = _HEAT) -> float:
    """The hottest thermal zone; 0 where none can be read."""
    return max((_number(zone / "temp", 0.0) / 1000 for zone in _zones(folder)), default=0.0)


def _batteries(folder: Path) -> list[Path]:
    return [supply for supply in sorted(folder.glob("*")) if _text(supply / "type") == "Battery"]


def _zones(folder: Path) -> list[Path]:
    return sorted(folder.glob("thermal_zone*"))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _number(path: Path, otherwise: float) -> float:
    try:
        return float(_text(path))
    except ValueError:
        return otherwise


_SENSORS: dict[str, Callable[[float], Sensor]] = {
    "load": lambda streams: Sensor(_load, streams + 1, 2 * streams + 1, is_slow=False),
    "battery": lambda left: Sensor(
        battery_used, 100 - min(2 * left, 100), 100 - left, lacks="" if _batteries(_POWER) else "a battery"
    ),
    "heat": lambda celsius: Sensor(
        hottest_celsius, celsius - 10, celsius, lacks="" if _zones(_HEAT) else "a thermal zone"
    ),
}
PRECISION_KINDS = ("off", "chapter", "bands", *_SENSORS)


def parse_precision(text: str, clock: Clock = now_ns) -> PrecisionPolicy | None:
    """A policy from words joined by +: `off`, `chapter`, `bands:0=full,512=mixed`, `load:8`, `battery:20`, `heat:85`.

    `load:N` goes to mixed above N streams and to low above 2 N; `battery:P` to mixed at 2 P percent left and to low at
    P; `heat:C` to mixed ten degrees below C and to low at C.

    Raises:
        ConfigError: a word is none of these, or its numbers make no sense.
    """
    if text == "off":
        return None
    bands, sensors = Bands(((0, FULL),)), []
    for word in text.split("+"):
        kind, _, rest = word.partition(":")
        if kind == "chapter" and not rest:
            bands = Bands()
        elif kind == "bands":
            bands = _parse_bands(rest)
        elif kind in _SENSORS and rest.isascii() and rest.isdigit() and 0 < int(rest) <= 1000:
            sensors.append(_SENSORS[kind](int(rest)))
        else:
            raise ConfigError(
                f"{word!r} is no precision.", f"Known are {', '.join(PRECISION_KINDS)}, as in chapter+battery:20."
            )
    return PrecisionPolicy(bands, tuple(sensors), clock)


def check_precision(text: str, weights: WeightSource) -> None:
    """Refuse a precision that could change nothing.

    Raises:
        ConfigError: the model has no nested weights, or the machine no sensor (under /sys) that `text` names.
    """
    policy = parse_precision(text)
    if policy is None:
        return
    if all(weights.info(name).format is not TensorFormat.N8_0 for name in weights.names()):
        raise ConfigError(
            f"The precision {text!r} is asked for, and the model has no nested weights to choose from.",
            "Make such a model with 'vivace compress MODEL OUT.gguf --recipe nested', or leave --precision off.",
        )
    for sensor in policy.sensors:
        if sensor.lacks:
            raise ConfigError(
                f"The precision {text!r} needs {sensor.lacks}, and this machine shows none.",
                "Choose by position or by load, as in chapter+load:8.",
            )


def _parse_bands(text: str) -> Bands:
    pairs = [part.partition("=") for part in text.split(",")]
    sound = all(start.isascii() and start.isdigit() and name in LEVEL_NAMES for start, _, name in pairs)
    bands = tuple((int(start), LEVEL_NAMES.index(name)) for start, _, name in pairs) if sound else ()
    starts = [start for start, _ in bands]
    if not bands or starts[0] != 0 or any(a >= b for a, b in pairwise(starts)):
        raise ConfigError(
            f"{text!r} are no bands.",
            f"Write bands:0=full,128=mixed, levels of {', '.join(LEVEL_NAMES)}.",
        )
    return Bands(bands)
