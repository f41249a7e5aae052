"""What one vocabulary entry stands for, in bytes.

Byte-level vocabularies (GPT-2, Radford et al. 2019) spell every byte as one printable character;
SentencePiece ones (Kudo & Richardson 2018) spell a space as U+2581 and a byte that no entry covers as
`<0xNN>`.
"""

from __future__ import annotations

import re
from typing import Literal

SPACE = "\u2581"
PieceKind = Literal["byte-level", "sentencepiece"]

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def _byte_alphabet() -> dict[str, int]:
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    alphabet.update({chr(256 + index): byte for index, byte in enumerate(others)})
    return alphabet


BYTE_ALPHABET = _byte_alphabet()


def piece_bytes(piece: str, kind: PieceKind, *, byte_tokens: bool) -> bytes:
    """Bytes of a vocabulary entry that was not added by hand (an added one stands for its own spelling).

    byte_tokens  whether `<0xNN>` stands for that byte (byte fallback)
    """
    if kind == "byte-level":
        values = [BYTE_ALPHABET.get(character, -1) for character in piece]
        return piece.encode("utf-8") if -1 in values else bytes(values)
    if byte_tokens and (match := _BYTE_TOKEN.fullmatch(piece)):
        return bytes([int(match[1], 16)])
    return piece.replace(SPACE, " ").encode("utf-8")
