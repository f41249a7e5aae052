"""Text made fit for a terminal."""

from __future__ import annotations

import re

# C0 without tab and line feed, DEL, C1: among them ESC, with which a text could repaint the terminal.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def visible(text: str) -> str:
    """Control characters other than tab and line feed as U+FFFD: what a model says must not steer a terminal."""
    return _CONTROL.sub("\ufffd", text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """A message as one line, whatever a file name or a library put into it."""
    return visible(" ".join(line.strip() for line in text.splitlines()))


def size(count: float) -> str:
    """Bytes for people, in powers of 1000: "98.4 MB"."""
    if count < 1000:
        return f"{count:.0f} B"
    for unit in ("kB", "MB", "GB"):
        count /= 1000
        if count < 999.95:
            return f"{count:.1f} {unit}"
    return f"{count / 1000:.1f} TB"


def number(count: int) -> str:
    """Parameters for people: "135 M", "1.54 B"."""
    for limit, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if count >= limit:
            return f"{count / limit:.3g} {unit}"
    return str(count)
