"""GGUF files written byte by byte, so that each byte can be wrong."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def pair(key: str | bytes, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def array(kind: int, count: int, values: bytes = b"") -> bytes:
    return struct.pack("<IQ", kind, count) + values


def tensor(
    name: str | bytes, sizes: tuple[int, ...], kind: int, offset: int, dims: int | None = None
) -> bytes:
    """`sizes` from the innermost dimension, as the file has them."""
    count = len(sizes) if dims is None else dims
    return text(name) + struct.pack(f"<I{len(sizes)}QIQ", count, *sizes, kind, offset)


ARCHITECTURE = pair("general.architecture", STRING, text("llama"))


@dataclass
class GGUFBytes:
    """Everything can be overridden; the defaults make a correct file with two tensors of 4 × 32."""

    magic: bytes = b"GGUF"
    version: int = 3
    pairs: list[bytes] = field(default_factory=lambda: [ARCHITECTURE])
    tensors: list[bytes] = field(
        default_factory=lambda: [tensor("a.weight", (32, 4), 0, 0), tensor("b.weight", (32, 4), 2, 512)]
    )
    data: bytes = bytes(512 + 72)
    pair_count: int | None = None
    tensor_count: int | None = None
    alignment: int = 32

    def header(self) -> bytes:
        counts = (
            len(self.tensors) if self.tensor_count is None else self.tensor_count,
            len(self.pairs) if self.pair_count is None else self.pair_count,
        )
        start = self.magic + struct.pack("<IQQ", self.version, *counts)
        return start + b"".join(self.pairs) + b"".join(self.tensors)

    def build(self) -> bytes:
        header = self.header()
        return header + bytes(-len(header) % self.alignment) + self.data
