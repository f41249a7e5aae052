"""A child's end of the line: messages of all lengths come whole, and short ones take little memory."""

from __future__ import annotations

import socket
import threading
import tracemalloc
from collections.abc import Iterator

import msgspec
import pytest

from inference_pio.children.line import Line


class _Said(msgspec.Struct, tag="said", forbid_unknown_fields=True):
    words: str
    data: bytes = b""


_Ends = tuple[Line[_Said, _Said], Line[_Said, _Said]]


@pytest.fixture
def ends() -> Iterator[_Ends]:
    ours, theirs = (Line[_Said, _Said](end, _Said) for end in socket.socketpair())
    yield ours, theirs
    ours.close()
    theirs.close()


def test_what_is_heard_is_what_was_said_whatever_its_length(ends: _Ends) -> None:
    """Messages that were heard before stay as they were when others come."""
    ours, theirs = ends
    said = [_Said("word " * length, bytes([length % 251]) * length) for length in (0, 1, 1000, 300_000, 5, 7)]

    def say() -> None:
        for message in said:
            ours.say(message)
        ours.close()

    saying = threading.Thread(target=say)
    saying.start()
    heard = []
    while (message := theirs.hear()) is not None:
        heard.append(message)
    saying.join()
    assert heard == said


def test_a_short_message_takes_little_memory(ends: _Ends) -> None:
    """A large piece for each, most of it given back, left holes all over the heap."""
    ours, theirs = ends
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(10):
            ours.say(_Said("short"))
            assert theirs.hear() == _Said("short")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most - before < 16_384


def test_it_waits_no_longer_than_its_socket_is_given() -> None:
    """Poll, which it waits in, knows nothing of that."""
    one, other = socket.socketpair()
    one.settimeout(0.05)
    with other:
        waiting = Line[_Said, _Said](one, _Said)
        with pytest.raises(TimeoutError, match="timed out"):
            waiting.hear()
        waiting.close()
