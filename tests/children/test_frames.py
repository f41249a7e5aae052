"""Frames: whatever the pieces in which they come, and whatever comes in place of them."""

from __future__ import annotations

import pickle
import struct
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference_pio.children.frames import MOST_BYTES, FrameReader, ProtocolError, frame


class _Said(msgspec.Struct, tag="said", forbid_unknown_fields=True):
    number: int
    words: list[str]


class _Done(msgspec.Struct, tag="done", forbid_unknown_fields=True):
    pass


class _Anything(msgspec.Struct, tag="anything", forbid_unknown_fields=True):
    value: Any


_MESSAGES = st.builds(
    _Said, st.integers(0, 2**63 - 1), st.lists(st.text(max_size=20), max_size=4)
) | st.builds(_Done)


def _reader() -> FrameReader[_Said | _Done | _Anything]:
    return FrameReader(_Said | _Done | _Anything)


@settings(max_examples=100, deadline=None)
@given(st.lists(_MESSAGES, max_size=6), st.lists(st.integers(1, 30), min_size=1))
def test_messages_come_whole_whatever_the_pieces(sent: list[_Said | _Done], pieces: list[int]) -> None:
    stream, reader, got = b"".join(map(frame, sent)), _reader(), []
    for turn in range(len(stream)):
        size = pieces[turn % len(pieces)]
        piece, stream = stream[:size], stream[size:]
        got += reader.feed(piece)
    assert got == sent
    assert not reader.cut_off


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.booleans())
def test_noise_is_refused_by_one_error(noise: bytes, framed: bool) -> None:
    stream = struct.pack("<I", len(noise)) + noise if framed else noise
    with suppress(ProtocolError):
        for message in _reader().feed(stream):
            assert isinstance(message, _Said | _Done | _Anything)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        pickle.dumps({"type": "done"}),
        msgspec.msgpack.encode({"type": "gone"}),
        msgspec.msgpack.encode({"type": "done", "more": 1}),
        msgspec.msgpack.encode({"type": "said", "number": "1", "words": []}),
        msgspec.msgpack.encode({"type": "said", "number": 2**63, "words": []})[:-1],
        msgspec.msgpack.encode(_Done()) + b"\0",
        b"\x91" * 100_000,
        b"\xdd\xff\xff\xff\xff",
        b"\x82\xa4type\xa8anything\xa5value" + b"\x91" * 100_000,
        b"\x82\xa4type\xa8anything\xa5value\xa2\xff\xfe",
        b"\x82\xa4type\xa8anything\xa5value\xc7\x01\x05x",
    ],
)
def test_what_is_no_message(body: bytes) -> None:
    with pytest.raises(ProtocolError, match="not a message"):
        list(_reader().feed(struct.pack("<I", len(body)) + body))


def test_lengths() -> None:
    with pytest.raises(ProtocolError, match="a frame of 4,294,967,295 bytes"):
        list(_reader().feed(b"\xff" * 4))
    with pytest.raises(ProtocolError, match="a frame takes 41,943,040"):
        frame(_Said(1, ["x" * MOST_BYTES]))
    reader = _reader()
    assert list(reader.feed(frame(_Done())[:-1])) == []
    assert reader.cut_off
