"""From what a caller calls an image to the bytes of its file. Nothing is ever fetched from a network."""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat
from pathlib import Path

from inference_pio.errors import ImageError

_SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]+):")
_MIME = {
    "image/png": "PNG",
    "image/jpeg": "JPEG",
    "image/jpg": "JPEG",
    "image/webp": "WEBP",
    "image/gif": "GIF",
    "image/bmp": "BMP",
}


def file_bytes(source: object, where: str, max_bytes: int) -> tuple[bytes, str | None]:
    """The file's bytes, and the format that a data URL claims for them.

    Args:
        source: a path (text or `Path`), the bytes themselves, or `data:image/…;base64,…`.
        where: names the image in errors.

    Raises:
        ImageError: another kind of source, a file that cannot be read, wrong base64, more than `max_bytes`.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        _check_size(len(source), where, max_bytes)
        return bytes(source), None
    if isinstance(source, str):
        scheme = _SCHEME.match(source)
        if scheme is None:
            return _read_file(source, where, max_bytes), None
        if scheme[1].lower() == "data":
            return _data_url(source, where, max_bytes)
        raise ImageError(
            where,
            f"{scheme[1].lower()}: addresses are not opened: give the path of a file, its bytes or a data: URL",
        )
    if isinstance(source, Path):
        return _read_file(source, where, max_bytes), None
    raise ImageError(
        where,
        f"must be the path of a file, its bytes or a data: URL, got {type(source).__name__}",
    )


def _data_url(url: str, where: str, max_bytes: int) -> tuple[bytes, str]:
    head, comma, text = url.strip().partition(",")
    mime, *parameters = head[5:].lower().split(";")
    if mime.startswith("image/svg"):
        raise ImageError(where, "SVG is a drawing program, not pixels: convert it to PNG")
    if mime not in _MIME:
        raise ImageError(where, f"a data: URL of {mime[:40]!r} is not read: it must be {', '.join(_MIME)}")
    if not comma or parameters[-1:] != ["base64"]:
        raise ImageError(where, f"the data: URL is not base64: it must begin with data:{mime};base64,")
    _check_size(len(text) * 3 // 4 - 2, where, max_bytes)
    try:
        return base64.b64decode(text, validate=True), _MIME[mime]
    except (binascii.Error, ValueError) as error:
        raise ImageError(where, f"the data: URL's base64 is broken: {str(error)[:80]}") from error


def _read_file(path: str | Path, where: str, max_bytes: int) -> bytes:
    # Without O_NONBLOCK, opening a pipe that nobody writes to would wait for ever.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    shown = f"{str(path)!r:.120}"
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        raise ImageError(where, f"{shown} cannot be opened: {error.strerror}") from error
    except ValueError as error:  # a NUL, or half of a surrogate pair
        raise ImageError(where, f"{shown} is not the path of a file") from error
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise ImageError(where, f"{shown} is not a regular file")
    with os.fdopen(descriptor, "rb") as file:
        _check_size(found.st_size, where, max_bytes)
        try:
            data = file.read(max_bytes + 1)
        except OSError as error:
            raise ImageError(where, f"{shown} cannot be read: {error.strerror}") from error
    _check_size(len(data), where, max_bytes)  # it may have grown since
    return data


def _check_size(size: int, where: str, max_bytes: int) -> None:
    if size > max_bytes:
        raise ImageError(
            where,
            f"the file has {size:,} bytes, more than {max_bytes:,}: save it smaller, or as JPEG or WebP",
        )
