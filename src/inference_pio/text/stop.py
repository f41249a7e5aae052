"""Strings that end an answer, found across the borders of what a stream brings."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Lets text through up to the first stop string, holding back what could become the start of one.

    The stop string that ends first in the text counts; of several that end there, the one that begins first.

    Args:
        strings: none of them empty.
        include: whether the stop string itself belongs to the text.
    """

    def __init__(self, strings: Sequence[str], include: bool) -> None:
        self._strings = tuple(strings)
        self._include = include
        self._held = ""
        self._hit: str | None = None
        # Length of the longest proper prefix of each string that is a suffix of what was seen (Knuth,
        # Morris, Pratt 1977), so that a character costs constant time on average whatever the strings are.
        self._failures = [_failure(string) for string in self._strings]
        self._matched = [0] * len(self._strings)

    def push(self, text: str) -> tuple[str, str | None]:
        """Text that is safe to emit, and the stop string that ended it, if one did; later text is dropped."""
        if self._hit is not None:
            return "", self._hit
        for index, character in enumerate(text):
            hit = self._step(character)
            if hit is not None:
                self._hit = hit
                seen = self._held + text[: index + 1]
                self._held = ""
                return (seen if self._include else seen[: len(seen) - len(hit)]), hit
        seen = self._held + text
        keep = max(self._matched, default=0)
        self._held = seen[len(seen) - keep :]
        return seen[: len(seen) - keep], None

    def finish(self) -> str:
        """What was held back and has become no stop string."""
        held, self._held = self._held, ""
        return held

    def _step(self, character: str) -> str | None:
        hit: str | None = None
        for which, string in enumerate(self._strings):
            matched = self._matched[which]
            while matched and string[matched] != character:
                matched = self._failures[which][matched - 1]
            matched += string[matched] == character
            self._matched[which] = matched
            if matched == len(string) and (hit is None or len(string) > len(hit)):
                hit = string
        return hit


def _failure(string: str) -> list[int]:
    lengths = [0] * len(string)
    for index in range(1, len(string)):
        matched = lengths[index - 1]
        while matched and string[matched] != string[index]:
            matched = lengths[matched - 1]
        lengths[index] = matched + (string[matched] == string[index])
    return lengths
