"""GGUF files of another's metadata, with tensors of other types (ggml's docs/gguf.md, version 3)."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from inference_pio.loader.draft import Layout
from inference_pio.loader.ggml_types import GGML_TYPES
from inference_pio.loader.gguf import GGUFFile
from inference_pio.loader.tensor_info import TensorInfo

_VERSION = 3
_UINT32, _STRING = 4, 8
_ALIGNMENT_KEY = "general.alignment"
_NUMBERS = {kind.name: number for number, kind in GGML_TYPES.items()}


def gguf_layout(
    source: GGUFFile, tensors: Mapping[str, TensorInfo], facts: Mapping[str, int | str]
) -> Layout:
    """A file with the keys of `source`, `facts` in place of those of the same name, and these tensors in this order.

    Numbers among the facts become uint32. Everything else stands as in the source, byte for byte.
    """
    alignment = source.metadata.get(_ALIGNMENT_KEY, 32)
    pairs = source.raw_pairs(without=facts.keys()) + [_pair(key, value) for key, value in facts.items()]
    head = bytearray(b"GGUF" + struct.pack("<IQQ", _VERSION, len(tensors), len(pairs)))
    for pair in pairs:
        head += pair
    relative, end = {}, 0
    for name, info in tensors.items():
        relative[name] = _up(end, alignment)
        head += _string(name) + struct.pack(f"<I{len(info.shape)}Q", len(info.shape), *reversed(info.shape))
        head += struct.pack("<IQ", _NUMBERS[info.dtype], relative[name])
        end = relative[name] + info.nbytes
    start = _up(len(head), alignment)
    head += bytes(start - len(head))
    return Layout(
        bytes(head), {name: start + offset for name, offset in relative.items()}, start + _up(end, alignment)
    )


def _pair(key: str, value: int | str) -> bytes:
    if isinstance(value, str):
        return _string(key) + struct.pack("<I", _STRING) + _string(value)
    return _string(key) + struct.pack("<II", _UINT32, value)


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _up(position: int, alignment: int) -> int:
    return -(-position // alignment) * alignment
