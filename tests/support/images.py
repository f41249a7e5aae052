"""Image files made in memory."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

from PIL import Image


def gradient(width: int = 20, height: int = 12, mode: str = "RGB") -> Image.Image:
    """No two pixels of a row or column alike, so that a turn or a swap of axes shows."""
    image = Image.new("RGB", (width, height))
    image.putdata(
        [(7 * x % 256, 11 * y % 256, (x + 3 * y) % 256) for y in range(height) for x in range(width)]
    )
    return image.convert(mode)


def saved(image: Image.Image, name: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG file that claims a size, with the given chunks behind its header."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join((png_chunk(b"IHDR", header), *chunks, png_chunk(b"IEND", b"")))


FILES = {
    "PNG": saved(gradient(), "PNG"),
    "JPEG": saved(gradient(), "JPEG", quality=90),
    "progressive JPEG": saved(gradient(), "JPEG", progressive=True),
    "WEBP": saved(gradient(), "WEBP", quality=80),
    "lossless WEBP": saved(gradient(), "WEBP", lossless=True),
    "GIF": saved(gradient(), "GIF"),
    "BMP": saved(gradient(), "BMP"),
}
