"""Text that comes in pieces, for readers that must not depend on where it is cut.

A reader is a generator over a `Feed`: it moves `feed.at` forward, yields where it needs more text, and returns what
it read. Every decision is taken on single characters or on markers held across pieces, so that any cut gives the same.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from typing import TypeVar

Result = TypeVar("Result")
Reader = Generator[None, None, Result]

MAX_DEPTH = 64
_MAX_NAME = 256
_SPACE = re.compile(r"\s*")
_NAME = re.compile(r"[^<>\[\]{}\s]*")
_IN_STRING = re.compile(r'[^"\\]*')
# Whole strings too, where nothing in them is escaped: a character at a time they would cost 0.3 s a megabyte.
_BETWEEN = re.compile(r'(?:[\s0-9A-Za-z+\-.,:]++|"[^"\\]*+")*+')
_CLOSER = {"{": "}", "[": "]"}


class Malformed(Exception):
    """This is no call; it steers, and never leaves this package.

    `back` is what was taken of a marker that turned out to be none; it is to be read again.
    """

    def __init__(self, back: str = "") -> None:
        super().__init__(back)
        self.back = back


class EndOfText(Exception):
    """Thrown into a reader that waits for more where there is no more."""


class Feed:
    """The piece at hand, and how much of it is taken."""

    def __init__(self) -> None:
        self.text, self.at = "", 0

    def give(self, text: str) -> None:
        self.text, self.at = text, 0


def overlap(text: str, marker: str) -> int:
    """Length of the longest end of `text` with which `marker` begins, without all of it."""
    for length in range(min(len(marker) - 1, len(text)), 0, -1):
        if text.endswith(marker[:length]):
            return length
    return 0


def more(feed: Feed) -> Reader[None]:
    """At least one character to take."""
    while feed.at >= len(feed.text):
        yield


def run(feed: Feed, pattern: re.Pattern[str], most: int | None = None) -> Reader[str]:
    """Characters of one kind, up to the first of another; at most `most` of them, or it is malformed."""
    parts: list[str] = []
    count = 0
    while True:
        yield from more(feed)
        match = pattern.match(feed.text, feed.at)
        end = match.end() if match else feed.at
        count += end - feed.at
        if most is not None and count > most:
            raise Malformed
        parts.append(feed.text[feed.at : end])
        feed.at = end
        if end < len(feed.text):
            return "".join(parts)


def space(feed: Feed) -> Reader[str]:
    return run(feed, _SPACE)


def name(feed: Feed) -> Reader[str]:
    """A name without spaces and brackets, 1 to 256 characters."""
    found = yield from run(feed, _NAME, _MAX_NAME)
    if not found:
        raise Malformed
    return found


def one_of(feed: Feed, words: Sequence[str]) -> Reader[tuple[bool, str]]:
    """(whether one of `words` comes, it or the part of it that did); none of them begins with another."""
    matched = ""
    while matched not in words:
        yield from more(feed)
        longer = matched + feed.text[feed.at]
        if not any(word.startswith(longer) for word in words):
            return False, matched
        matched = longer
        feed.at += 1
    return True, matched


def expect(feed: Feed, *words: str) -> Reader[str]:
    """Which of `words` comes; anything else is malformed."""
    found, matched = yield from one_of(feed, words)
    if not found:
        raise Malformed(matched)
    return matched


def closing(feed: Feed, word: str) -> Reader[None]:
    """White space and `word`; at the end of the text it may be missing, since nothing is missing before it."""
    try:
        yield from space(feed)
        yield from expect(feed, word)
    except EndOfText:
        return


def until(feed: Feed, marker: str, taken: str = "") -> Reader[str]:
    """What comes before `marker`, which is taken as well; `taken` is a shorter text that came already."""
    parts: list[str] = []
    while True:
        yield from more(feed)
        text = taken + feed.text[feed.at :]
        found = text.find(marker)
        if found >= 0:
            feed.at += found + len(marker) - len(taken)
            return "".join([*parts, text[:found]])
        keep = overlap(text, marker)
        parts.append(text[: len(text) - keep])
        taken = text[len(text) - keep :]
        feed.at = len(feed.text)


def value(feed: Feed, marker: str, followers: Sequence[str]) -> Reader[tuple[str, str]]:
    """(what comes before a `marker` that one of `followers` follows, which of them); other markers are part of it."""
    parts: list[str] = []
    taken = ""
    while True:
        parts.append((yield from until(feed, marker, taken)))
        gap = yield from space(feed)
        found, taken = yield from one_of(feed, followers)
        if found:
            return "".join(parts), taken
        parts += (marker, gap)


def json_text(feed: Feed, opened: str = "") -> Reader[str]:
    """A JSON object or array up to its last bracket, `opened` if that was taken already.

    Brackets, strings and the characters between them are followed; whether the rest is JSON is for others to say.
    """
    first = opened or (yield from expect(feed, *_CLOSER))
    parts, nesting = [first], _Nesting(first)
    while True:
        yield from more(feed)
        start, end = feed.at, nesting.indifferent(feed.text, feed.at)
        done = False
        if end < len(feed.text):
            feed.at = end  # what is in front of a wrong character is taken
            done = nesting.step(feed.text[end])
            end += 1
        parts.append(feed.text[start:end])
        feed.at = end
        if done:
            return "".join(parts)


class _Nesting:
    """Where in a JSON text we are."""

    def __init__(self, first: str) -> None:
        self._closers = [_CLOSER[first]]
        self._string = self._escaped = False

    def indifferent(self, text: str, at: int) -> int:
        """The end of what changes nothing."""
        if self._escaped:
            return at
        match = (_IN_STRING if self._string else _BETWEEN).match(text, at)
        return match.end() if match else at

    def step(self, character: str) -> bool:
        """Whether the whole text ends with `character`."""
        if self._escaped:
            self._escaped = False
        elif self._string:
            self._escaped, self._string = character == "\\", character == "\\"
        elif character == '"':
            self._string = True
        elif character in _CLOSER and len(self._closers) < MAX_DEPTH:
            self._closers.append(_CLOSER[character])
        elif character == self._closers[-1]:
            self._closers.pop()
        else:
            raise Malformed
        return not self._closers
