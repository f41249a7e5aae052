"""Special tokens in somebody's text stay text.

A tokenizer finds its special tokens by their spelling, so a user who types `<|im_end|>` would end their own
turn. `Protector.protect` puts the noncharacter U+FDD0 behind the first character of every such spelling;
the tokenizer searches for special tokens before it normalises, does not find the broken spelling, and then
drops the mark, so the ids are those of the plain characters. Unicode reserves U+FDD0 for such internal use
and never for exchange (The Unicode Standard, 23.7); a text that contains one already is refused rather than
changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from inference_pio.errors import UsageError

MARK = "\ufdd0"


class Protector:
    """Marks every occurrence, overlapping ones too, of a set of strings of at least two characters."""

    def __init__(self, strings: Iterable[str]) -> None:
        self._strings = frozenset(text for text in strings if len(text) > 1)
        self._lengths = sorted({len(text) for text in self._strings})
        heads = sorted({text[:2] for text in self._strings})
        # Zero width, so that an occurrence that starts inside another one is seen as well.
        self._start = re.compile("(?=" + "|".join(map(re.escape, heads)) + ")") if heads else None

    def protect(self, text: str, where: str = "text") -> str:
        """`text` with the mark inside every occurrence; raises `UsageError` if `text` holds the mark itself."""
        if (position := text.find(MARK)) >= 0:
            raise UsageError(
                f"{where}: character {position} is U+FDD0, which Unicode reserves for internal use; remove it"
            )
        if self._start is None:
            return text
        parts: list[str] = []
        done = 0
        for match in self._start.finditer(text):
            start = match.start()
            if any(text[start : start + length] in self._strings for length in self._lengths):
                parts += (text[done : start + 1], MARK)
                done = start + 1
        parts.append(text[done:])
        return "".join(parts)


def unprotect(text: str) -> str:
    """The text without marks, as a person should see it."""
    return text.replace(MARK, "")
