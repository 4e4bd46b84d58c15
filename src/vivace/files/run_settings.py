"""How a model file asks to be run (`types.run_settings`), as metadata of GGUF files and of compressed-tensors folders.

GGUF: `vivace.activation_bits`, `vivace.kv_format` and, where codes of inputs span something else than groups of
columns, `vivace.activations.*`. A folder's `quantization_config`: `input_activations`, and `kv_format` of the section
`vivace` in config.json.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from vivace.files.gguf_metadata import GgufMetadata
from vivace.files.json_object import JsonObject
from vivace.types.errors import ConfigError, ModelFileError
from vivace.types.input_scheme import FINE_BITS, GROUP, PLAIN_INPUTS, TENSOR, TOKEN, InputScheme, is_input_bits
from vivace.types.kv import KV_FORMAT_NAMES
from vivace.types.run_settings import RunSettings

ACTIVATION_BITS, KV_FORMAT = "vivace.activation_bits", "vivace.kv_format"
SECTION, KV_FORMAT_FIELD = "vivace", "kv_format"  # of config.json
SCHEME = "vivace.activations."
GRANULARITY, SYMMETRIC, INPUTS = f"{SCHEME}granularity", f"{SCHEME}symmetric", f"{SCHEME}inputs"
CLIPS, LOW, HIGH = f"{SCHEME}clips", f"{SCHEME}low", f"{SCHEME}high"  # one number for each of INPUTS, or none
Notes = dict[str, int | str | bool | list[str] | NDArray[np.generic]]


def gguf_run_settings(metadata: GgufMetadata) -> RunSettings:
    """What a GGUF file asks for.

    Raises:
        ModelFileError: something that vivace does not know.
    """
    bits = metadata.integer(ACTIVATION_BITS) if metadata.has(ACTIVATION_BITS) else None
    kv_format = metadata.text(KV_FORMAT) if metadata.has(KV_FORMAT) else None
    return checked(bits, kv_format, _gguf_inputs(metadata))


def _gguf_inputs(metadata: GgufMetadata) -> InputScheme:
    if not metadata.has(GRANULARITY):
        return PLAIN_INPUTS
    names = metadata.strings(INPUTS)
    clips, low, high = (_by_input(names, metadata.numbers(key), key) for key in (CLIPS, LOW, HIGH))
    ranges = {name: (number, high[name]) for name, number in low.items() if name in high}
    try:
        return InputScheme(metadata.text(GRANULARITY), metadata.flag(SYMMETRIC, True), clips, ranges)
    except ConfigError as error:
        raise ModelFileError(f"The metadata keys {SCHEME}* ask for what vivace lacks: {error}") from None


def _by_input(names: list[str], numbers: NDArray[np.generic], key: str) -> dict[str, float]:
    if not len(numbers):
        return {}
    if len(numbers) != len(names):
        raise ModelFileError(f"The metadata key {key} has not one number for each of {INPUTS}.", "Get the file again.")
    return dict(zip(names, numbers.astype(np.float64).tolist(), strict=True))


def folder_run_settings(config: JsonObject) -> RunSettings:
    """What the config.json of a Hugging Face folder asks for.

    Whole-number activations of 8 bits or fewer with one dynamic scale a token are run so; others as vivace has them by
    itself: dynamic, in groups of 32 columns, which is finer than a static scale.

    Raises:
        ModelFileError: a field is of the wrong type, or something that vivace does not know.
    """
    groups = config.inner("quantization_config").inner("config_groups")
    asked = [groups.inner(name).inner("input_activations") for name in groups.as_dict()]
    whole = [one for one in asked if one.as_dict() and one.text("type", "int") == "int"]
    kv_format = config.inner(SECTION).text(KV_FORMAT_FIELD, "") or None
    if not whole or not is_input_bits(whole[0].integer("num_bits")):
        return checked(None, kv_format)
    found = whole[0]
    is_token = found.text("strategy", "") == TOKEN and found.flag("dynamic", default=False)
    inputs = InputScheme(TOKEN, found.flag("symmetric", default=True)) if is_token else PLAIN_INPUTS
    return checked(found.integer("num_bits"), kv_format, inputs)


def folder_inputs(settings: RunSettings) -> dict[str, object] | None:
    """The `input_activations` of a folder that asks for them; None where the engine's own are meant.

    Raises:
        ConfigError: ranges or clips, which the layouts have no place for here, or 12 bits with a scale a token.
    """
    bits, inputs = settings.activation_bits, settings.inputs
    if inputs == PLAIN_INPUTS and bits in (None, FINE_BITS):
        return None
    if bits == FINE_BITS or inputs.ranges or inputs.clips or inputs.granularity == TENSOR:
        raise ConfigError(
            "A compressed-tensors folder has no place for ranges or clips of inputs, or for 12 bits.",
            "End OUT in .gguf, or ask for dynamic activations of 8 bits or fewer.",
        )
    strategy = {"strategy": TOKEN} if inputs.granularity == TOKEN else {"strategy": GROUP, "group_size": 32}
    return {"num_bits": bits, "type": "int", "symmetric": inputs.symmetric, **strategy, "dynamic": True}


def gguf_notes(settings: RunSettings) -> Notes:
    """The metadata keys that make a GGUF file ask for them."""
    asked = {ACTIVATION_BITS: settings.activation_bits, KV_FORMAT: settings.kv_format}
    notes: Notes = {key: value for key, value in asked.items() if value is not None}
    scheme = settings.inputs
    if scheme == PLAIN_INPUTS:
        return notes
    notes |= {GRANULARITY: scheme.granularity, SYMMETRIC: scheme.symmetric}
    if scheme.ranges:
        notes |= {INPUTS: list(scheme.ranges)}
        notes |= {LOW: _floats({name: low for name, (low, _) in scheme.ranges.items()})}
        notes |= {HIGH: _floats({name: high for name, (_, high) in scheme.ranges.items()})}
    elif scheme.clips:
        notes |= {INPUTS: list(scheme.clips), CLIPS: _floats(scheme.clips)}
    return notes


def _floats(numbers: Mapping[str, float]) -> NDArray[np.generic]:
    return np.array(list(numbers.values()), np.float32)


def checked(activation_bits: int | None, kv_format: str | None, inputs: InputScheme = PLAIN_INPUTS) -> RunSettings:
    """The settings, if vivace knows what they ask for.

    Raises:
        ModelFileError: it does not.
    """
    if activation_bits is not None and not is_input_bits(activation_bits):
        raise ModelFileError(
            f"The model asks for activations of {activation_bits} bits.",
            "vivace runs 2 to 8 and 12; make the file again.",
        )
    if kv_format not in (None, *KV_FORMAT_NAMES):
        raise ModelFileError(
            f"The model asks for keys and values as {str(kv_format)[:40]!a}.",
            f"Known are {', '.join(KV_FORMAT_NAMES)}.",
        )
    return RunSettings(activation_bits, kv_format, inputs)
