"""Format and size of an image, from the first bytes of its file: known before any decoder sees it.

PNG: W3C PNG specification, 5.2 and 11.2.1. JPEG: ITU-T T.81, B.1 and B.2.2. GIF: GIF89a specification, 17 and 18.
WebP: RFC 9649, 2.3 to 2.7. BMP: BITMAPCOREHEADER and BITMAPINFOHEADER of the Windows documentation.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

# Formats that are recognised to be refused by name.
_OTHERS = (
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"%PDF", "PDF"),
    (b"PK\3\4", "ZIP"),
    (b"\0\0\1\0", "ICO"),
    (b"8BPS", "PSD"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
)
# Start of frame: every coding that T.81 names; C4, C8 and CC are tables and reserved.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_STANDALONE = frozenset([0x01, *range(0xD0, 0xD8)])
# A marker, and not a byte of pixels, a restart among them or a fill byte.
_MARKER = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd7]", re.DOTALL)
_SCAN, _END = 0xDA, 0xD9
# A file of nothing but markers would keep us busy; real ones have tens.
_MAX_MARKERS = 10_000


class BadHeader(ValueError):
    """The file is not an image of a known format, or its header is broken; says what is wrong."""


@dataclass(frozen=True)
class Header:
    """`format` is "PNG", "JPEG", "WEBP", "GIF" or "BMP"; width and height are in pixels, before any rotation."""

    format: str
    width: int
    height: int


def read_header(data: bytes) -> Header:
    """What the file says of itself.

    Raises:
        BadHeader: another format, or the file ends within its header.
    """
    for magic, name, size_of in _FORMATS:
        if data.startswith(magic) and (name != "WEBP" or data[8:12] == b"WEBP"):
            try:
                width, height = size_of(data)
            except (struct.error, IndexError) as error:
                raise BadHeader(f"the {name} file ends within its header") from error
            return Header(name, width, height)
    raise BadHeader(_unknown(data))


def _png(data: bytes) -> tuple[int, int]:
    if data[12:16] != b"IHDR":
        raise BadHeader("the PNG file does not begin with its header chunk IHDR")
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _gif(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from("<HH", data, 6)
    return width, height


def _bmp(data: bytes) -> tuple[int, int]:
    (kind,) = struct.unpack_from("<I", data, 14)
    if kind == 12:
        width, height = struct.unpack_from("<HH", data, 18)
        return width, height
    width, height = struct.unpack_from("<ii", data, 18)
    return width, abs(height)  # below 0: the rows stand from top to bottom


def _webp(data: bytes) -> tuple[int, int]:
    (size,) = struct.unpack_from("<I", data, 4)
    if size + 8 > len(data):
        raise BadHeader(f"the WEBP file is cut off: {len(data)} bytes of {size + 8}")
    kind = data[12:16]
    if kind == b"VP8X":
        low, high = data[24:27], data[27:30]
        if len(high) < 3:
            raise IndexError
        return int.from_bytes(low, "little") + 1, int.from_bytes(high, "little") + 1
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    raise BadHeader("the WEBP file does not begin with a chunk that holds an image")


def _jpeg(data: bytes) -> tuple[int, int]:
    """The first frame's size: markers are walked by their lengths up to it."""
    at = 2
    for _ in range(_MAX_MARKERS):
        if data[at] != 0xFF:
            raise BadHeader(f"the JPEG file has no marker at byte {at}")
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker in _STANDALONE:
            at += 2
        elif marker in _FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        elif marker in (_SCAN, _END):
            raise BadHeader("the JPEG file has no frame before its pixels")
        else:
            (length,) = struct.unpack_from(">H", data, at + 2)
            at += 2 + max(length, 2)
    raise BadHeader(f"the JPEG file has no frame behind its first {_MAX_MARKERS} markers")


def count_scans(data: bytes, most: int) -> int:
    """Scans of a JPEG file, each of which costs a pass over all pixels; counted up to one more than `most`.

    Thumbnails in segments and whatever lies behind the image's end are not of it.

    Raises:
        BadHeader: the file is made of markers.
    """
    at, scans = 2, 0
    for _ in range(_MAX_MARKERS):
        found = _MARKER.search(data, at)
        if found is None or data[found.end() - 1] == _END or scans > most:
            return scans
        at = found.end() + max(2, int.from_bytes(data[found.end() : found.end() + 2], "big"))
        scans += data[found.end() - 1] == _SCAN
    raise BadHeader(f"the JPEG file has more than {_MAX_MARKERS} markers")


_FORMATS: tuple[tuple[bytes, str, Callable[[bytes], tuple[int, int]]], ...] = (
    (b"\x89PNG\r\n\x1a\n", "PNG", _png),
    (b"\xff\xd8\xff", "JPEG", _jpeg),
    (b"GIF87a", "GIF", _gif),
    (b"GIF89a", "GIF", _gif),
    (b"RIFF", "WEBP", _webp),
    (b"BM", "BMP", _bmp),
)


def _unknown(data: bytes) -> str:
    known = "PNG, JPEG, WebP, GIF and BMP are read"
    if not data:
        return "is empty"
    text = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<svg", b"<?xml", b"<!doctype svg")):
        return f"SVG is a drawing program, not pixels: {known}; convert it to PNG"
    if data[4:8] == b"ftyp":
        return f"AVIF, HEIC and films are not read: {known}"
    name = next((name for magic, name in _OTHERS if data.startswith(magic)), None)
    return f"{name} is not read: {known}" if name else f"not an image: {known}"
