"""An answer as it comes: thoughts, content and tool calls told apart.

What is told, joined, does not depend on where the text is cut into pieces. Nothing that could still become a marker is
told before it is clear what it is, and nothing that has been told is taken back: a call is told when it is whole.

* Thoughts come first or not at all, from the start marker (or the beginning, where the chat template wrote the marker)
  to the end marker or the end of the answer. Whatever is spelt between them is thought. Line breaks next to the markers
  belong to the markers.
* A call that breaks its syntax is content, with its markers, up to the character that breaks it, and what follows is
  read afresh. So is one that the end of the answer cuts off (only the closing marker may be missing), and the first
  MAX_CALL characters of a longer one.
* White space between content and a call is content where more content follows, and nothing where none does.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Generator, Iterable
from itertools import groupby

from inference_pio.outputs import (
    ChatEvent,
    ContentDelta,
    ReasoningDelta,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallStart,
)
from inference_pio.plugin.facts import ReasoningFormat
from inference_pio.text.calls import Call, Schemas, Syntax
from inference_pio.text.feed import EndOfText, Feed, Malformed, overlap

MAX_CALL = 1 << 20
_BLOCK = 2048
# A longer run of white space is told as it comes: what is held back stays small.
_RUN = 256


class AnswerParser:
    """One answer's text into events.

    Args:
        reasoning: how thoughts are marked; None: there are none.
        thinking: the prompt ends within thoughts already.
        syntax: how calls are written; None: none are looked for.
        schemas: the tools there are, for the types of their parameters.
        new_id: the id of a call whose model gave it none.
    """

    def __init__(
        self,
        reasoning: ReasoningFormat | None = None,
        *,
        thinking: bool = False,
        syntax: Syntax | None = None,
        schemas: Schemas | None = None,
        new_id: Callable[[], str] | None = None,
    ) -> None:
        self._reasoning, self._syntax, self._schemas = reasoning, syntax, schemas or {}
        self._new_id = new_id or (_short_id if syntax is not None and syntax.short_ids else _long_id)
        self._phase = self._content if reasoning is None else self._thought if thinking else self._before
        self._told: list[ChatEvent] = []
        self._held = ""  # at most a marker's beginning and a run of white space
        self._skip_breaks = thinking
        self._space = ""  # white space behind content, of which it is not clear yet whether a call follows
        self._has_content = self._called = False
        self._calls = 0
        self._feed, self._reader = Feed(), _nothing()
        self._taken: list[str] = []
        self._size = 0

    def feed(self, text: str) -> list[ChatEvent]:
        """What more text makes clear."""
        for start in range(0, len(text), _BLOCK):
            rest = text[start : start + _BLOCK]
            while rest:
                held, self._held = self._held, ""
                rest = self._phase(held + rest)
        return self._flush()

    def finish(self) -> list[ChatEvent]:
        """What the end of the answer makes clear; nothing may be fed afterwards."""
        if self._phase == self._call:
            try:
                self._reader.throw(EndOfText)
            except StopIteration as done:
                self._tell_calls(done.value)
            except (EndOfText, Malformed):
                self._say("".join(self._taken))
        elif self._phase == self._thought:
            self._think(self._held)
        else:
            self._say(self._held)
        if not self._called:
            self._tell_content(self._space)
        return self._flush()

    # Where in the answer we are: each takes some of the text and returns the rest -----------------------------------

    def _before(self, text: str) -> str:
        assert self._reasoning is not None
        start, stripped = self._reasoning.start, text.lstrip()
        if stripped.startswith(start) and len(text) - len(stripped) <= _RUN:
            self._phase, self._skip_breaks = self._thought, True
            return stripped[len(start) :]
        if start.startswith(stripped) and len(text) - len(stripped) <= _RUN:
            self._held = text
            return ""
        self._phase = self._content
        return text

    def _thought(self, text: str) -> str:
        assert self._reasoning is not None
        if self._skip_breaks:
            text = text.lstrip("\n")
            self._skip_breaks = not text
        end = self._reasoning.end
        found = text.find(end)
        if found >= 0:
            self._think(_cut(text[:found], "\n")[0])
            self._phase, self._skip_breaks = self._content, True
            return text[found + len(end) :]
        body, breaks = _cut(text[: len(text) - overlap(text, end)], "\n")
        self._think(body)
        self._held = breaks + text[len(body) + len(breaks) :]
        return ""

    def _content(self, text: str) -> str:
        if self._skip_breaks:
            text = text.lstrip("\n")
            self._skip_breaks = not text
        start, keep = self._opener(text)
        self._say(text[:start])
        if keep:
            self._held = text[start:]
            return ""
        if start < len(text) and self._syntax is not None:
            self._phase, self._taken, self._size = self._call, [], 0
            self._feed = Feed()
            self._reader = self._syntax.read(self._feed, self._schemas)
        return text[start:]

    def _opener(self, text: str) -> tuple[int, bool]:
        """(where a call may begin, or the length of `text`; whether that is not sure yet)."""
        if self._syntax is None:
            return len(text), False
        if self._syntax.anywhere:
            found = [at for at in map(text.find, self._syntax.openers) if at >= 0]
            kept = max(overlap(text, opener) for opener in self._syntax.openers)
            return (min(found), False) if found else (len(text) - kept, kept > 0)
        begins = text.lstrip()
        start = len(text) - len(begins)
        told = not self._called and len(self._space) + start >= _RUN
        if self._has_content or told or not begins:
            return len(text), False
        if any(begins.startswith(opener) for opener in self._syntax.openers):
            return start, False
        if any(opener.startswith(begins) for opener in self._syntax.openers):
            return start, True
        return len(text), False

    def _call(self, text: str) -> str:
        piece = text[: MAX_CALL - self._size]
        self._feed.give(piece)
        try:
            next(self._reader)
        except StopIteration as done:
            self._phase = self._content
            self._tell_calls(done.value)
            return text[self._feed.at :]
        except Malformed as error:
            taken = "".join(self._taken) + piece[: self._feed.at]
            self._phase = self._content
            self._say(taken[: len(taken) - len(error.back)])
            return error.back + text[self._feed.at :]
        self._taken.append(piece)
        self._size += len(piece)
        if self._size == MAX_CALL:
            self._phase = self._content
            self._say("".join(self._taken))
        return text[len(piece) :]

    # What there is to tell -------------------------------------------------------------------------------------------

    def _say(self, text: str) -> None:
        content, self._space = _cut(self._space + text, None)
        if content and self._called and not self._has_content:
            content = content.lstrip()
        if content:
            self._tell_content(content)

    def _tell_content(self, text: str) -> None:
        if text:
            self._told.append(ContentDelta(text))
            self._has_content, self._called = True, False

    def _think(self, text: str) -> None:
        if text:
            self._told.append(ReasoningDelta(text))

    def _tell_calls(self, calls: list[Call]) -> None:
        for call in calls:
            index = self._calls
            self._told += (
                ToolCallStart(index, call.id or self._new_id(), call.name),
                ToolCallArguments(index, call.arguments),
                ToolCallEnd(index),
            )
            self._calls += 1
        self._called = True

    def _flush(self) -> list[ChatEvent]:
        told, self._told = self._told, []
        return joined(told)


def joined(events: Iterable[ChatEvent]) -> list[ChatEvent]:
    """Neighbouring pieces of one kind of text put together."""
    result: list[ChatEvent] = []
    for kind, group in groupby(events, type):
        if kind is ContentDelta or kind is ReasoningDelta:
            texts = [event.text for event in group if isinstance(event, ContentDelta | ReasoningDelta)]
            result.append(
                ContentDelta("".join(texts)) if kind is ContentDelta else ReasoningDelta("".join(texts))
            )
        else:
            result += group
    return result


def _cut(text: str, characters: str | None) -> tuple[str, str]:
    """(text, the run of `characters` at its end), of a run only what is left of full lengths of _RUN."""
    body = len(text.rstrip(characters))
    body += (len(text) - body) // _RUN * _RUN
    return text[:body], text[body:]


def _nothing() -> Generator[None, None, list[Call]]:
    return []
    yield


def _long_id() -> str:
    return f"call_{secrets.token_hex(12)}"


def _short_id() -> str:
    """Mistral's templates take ids of nine letters and digits only."""
    return f"{secrets.randbelow(10**9):09d}"
