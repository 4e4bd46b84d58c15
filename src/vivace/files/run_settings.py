"""How a model file asks to be run (`types.run_settings`), as metadata of GGUF files and of compressed-tensors folders.

GGUF: `vivace.activation_bits` and `vivace.kv_format`. A folder's `quantization_config`: 8-bit dynamic
`input_activations`, and `kv_format` of the section `vivace` in config.json.
"""

from vivace.files.gguf_metadata import GgufMetadata
from vivace.files.json_object import JsonObject
from vivace.types.errors import ModelFileError
from vivace.types.kv import KV_FORMAT_NAMES
from vivace.types.run_settings import RunSettings

ACTIVATION_BITS, KV_FORMAT = "vivace.activation_bits", "vivace.kv_format"
SECTION, KV_FORMAT_FIELD = "vivace", "kv_format"  # of config.json
KNOWN_BITS = (8, 12)


def gguf_run_settings(metadata: GgufMetadata) -> RunSettings:
    """What a GGUF file asks for.

    Raises:
        ModelFileError: something that vivace does not know.
    """
    bits = metadata.integer(ACTIVATION_BITS) if metadata.has(ACTIVATION_BITS) else None
    kv_format = metadata.text(KV_FORMAT) if metadata.has(KV_FORMAT) else None
    return checked(bits, kv_format)


def folder_run_settings(config: JsonObject) -> RunSettings:
    """What the config.json of a Hugging Face folder asks for.

    Whole-number activations of 8 bits are run as vivace has them: dynamic, in groups of 32 columns, which is finer than
    one scale a token or a static one.

    Raises:
        ModelFileError: a field is of the wrong type, or something that vivace does not know.
    """
    groups = config.inner("quantization_config").inner("config_groups")
    asked = [groups.inner(name).inner("input_activations") for name in groups.as_dict()]
    is_whole = [one.text("type", "int") == "int" and one.integer("num_bits") == 8 for one in asked if one.as_dict()]
    kv_format = config.inner(SECTION).text(KV_FORMAT_FIELD, "")
    return checked(8 if any(is_whole) else None, kv_format or None)


def gguf_notes(settings: RunSettings) -> dict[str, int | str]:
    """The metadata keys that make a GGUF file ask for them."""
    notes = {ACTIVATION_BITS: settings.activation_bits, KV_FORMAT: settings.kv_format}
    return {key: value for key, value in notes.items() if value is not None}


def checked(activation_bits: int | None, kv_format: str | None) -> RunSettings:
    """The settings, if vivace knows what they ask for.

    Raises:
        ModelFileError: it does not.
    """
    if activation_bits not in (None, *KNOWN_BITS):
        raise ModelFileError(
            f"The model asks for activations of {activation_bits} bits.", "vivace runs 8 and 12; make the file again."
        )
    if kv_format not in (None, *KV_FORMAT_NAMES):
        raise ModelFileError(
            f"The model asks for keys and values as {str(kv_format)[:40]!a}.",
            f"Known are {', '.join(KV_FORMAT_NAMES)}.",
        )
    return RunSettings(activation_bits, kv_format)
