"""The 256 printable characters in which byte-level BPE vocabularies spell bytes (GPT-2; Radford et al., 2019).

Printable Latin-1 bytes stand for themselves; the other 68 bytes (controls, space, soft hyphen ...) are shifted to the
characters from U+0100 on, so that no token of a vocabulary file contains a blank.
"""


def _alphabet() -> dict[int, str]:
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = {byte: chr(byte) for byte in printable}
    shifted = (byte for byte in range(256) if byte not in alphabet)
    alphabet.update({byte: chr(0x100 + index) for index, byte in enumerate(shifted)})
    return alphabet


BYTE_TO_CHARACTER: dict[int, str] = _alphabet()
CHARACTER_TO_BYTE: dict[str, int] = {character: byte for byte, character in BYTE_TO_CHARACTER.items()}


def spell(piece: str) -> bytes:
    """Bytes that a byte-level vocabulary entry stands for.

    An entry with a character outside the alphabet was never made of bytes (an added token in plain text): it stands
    for its own UTF-8.
    """
    try:
        return bytes([CHARACTER_TO_BYTE[character] for character in piece])
    except KeyError:
        return piece.encode("utf-8")
