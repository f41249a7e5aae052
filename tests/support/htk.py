"""A vocabulary in the HTKVOCAB container (npm, @hypertok) as GGUF metadata of a byte-level BPE."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from inference_pio.text.pieces import BYTE_ALPHABET

_CHARACTER = {byte: character for character, byte in BYTE_ALPHABET.items()}
_NORMAL, _CONTROL = 1, 3
_HEADER, _SECTION = 0x40, 16
_BYTES, _LENGTHS, _SPECIAL = 2, 3, 4


def gguf_metadata(file: Path, pre: str) -> dict[str, Any]:
    """Merges are not taken from the file but derived: a token's rank is its id, as in every tiktoken vocabulary."""
    data = file.read_bytes()
    assert data[:8] == b"HTKVOCAB"
    (sections,) = struct.unpack_from("<I", data, 24)
    places = [struct.unpack_from("<III", data, _HEADER + _SECTION * i) for i in range(sections)]
    section = {number: data[start : start + size] for number, start, size in places}
    tokens = _cut(section[_BYTES], _lengths(section[_LENGTHS]))
    special = _special(section[_SPECIAL])
    ranks = {token: rank for rank, token in enumerate(tokens) if rank not in special}
    texts = ["".join(_CHARACTER[byte] for byte in token) for token in tokens]
    for token_id, text in special.items():
        texts[token_id] = text
    halves = (_halves(token, rank, ranks) for token, rank in ranks.items() if len(token) > 1)
    pairs = [pair for pair in halves if pair is not None]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": texts,
        "tokenizer.ggml.token_type": [_CONTROL if i in special else _NORMAL for i in range(len(texts))],
        "tokenizer.ggml.merges": [
            " ".join("".join(_CHARACTER[byte] for byte in half) for half in pair) for pair in pairs
        ],
    }


def _halves(token: bytes, rank: int, ranks: dict[bytes, int]) -> tuple[bytes, bytes] | None:
    """The two tokens that are left when everything below `rank` has been merged; None where more are left."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        best = min(range(len(parts) - 1), key=lambda i: ranks.get(parts[i] + parts[i + 1], rank))
        if ranks.get(parts[best] + parts[best + 1], rank) >= rank:
            return None
        parts[best : best + 2] = [parts[best] + parts[best + 1]]
    return parts[0], parts[1]


def _lengths(data: bytes) -> list[int]:
    """LEB128 numbers."""
    found, value, shift = [], 0, 0
    for byte in data:
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            found.append(value)
            value = shift = 0
    return found


def _cut(data: bytes, lengths: list[int]) -> list[bytes]:
    tokens, place = [], 0
    for length in lengths:
        tokens.append(data[place : place + length])
        place += length
    assert place == len(data)
    return tokens


def _special(data: bytes) -> dict[int, str]:
    (count,) = struct.unpack_from("<I", data)
    found, place = {}, 4
    for _ in range(count):
        token_id, length = struct.unpack_from("<II", data, place)
        found[token_id] = data[place + 8 : place + 8 + length].decode()
        place += 12 + length
    return found
