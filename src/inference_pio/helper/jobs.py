"""What the helper is asked, and what it says."""

from __future__ import annotations

from typing import Any

import msgspec

from inference_pio.security.confine import Confinement

# An image's file has 20 MB at most, its pixels three bytes each, a conversation 8 MB of text.
MOST_BYTES = 160 << 20


class _Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="is", tag=str.lower):
    pass


class Begin(_Message, frozen=True):
    """The first word."""

    confinement: Confinement
    parent: int
    cpu_seconds: int


class Render(_Message, frozen=True):
    """A chat template with its values; `path` is the model's, named in errors."""

    source: str
    values: dict[str, Any]
    path: str


class Decode(_Message, frozen=True):
    """An image file, whose header has been held to the limits."""

    data: bytes
    where: str
    format: str
    width: int
    height: int


class Ready(_Message, frozen=True):
    """It is locked in."""


class Rendered(_Message, frozen=True):
    text: str


class Pixels(_Message, frozen=True):
    """Rows of RGB, 8 bits each."""

    height: int
    width: int
    data: bytes


class Refused(_Message, frozen=True):
    """An error by its name in `errors.py`."""

    error: str
    text: str


ToHelper = Begin | Render | Decode
FromHelper = Ready | Rendered | Pixels | Refused
