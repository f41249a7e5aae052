"""Frames between a worker and its parent: four bytes of length, little-endian, and one message in msgpack.

No input or output here: bytes come in as the socket gives them, whole messages go out. What is not a message of the
closed set ends the conversation; a frame is never passed over.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from types import UnionType
from typing import Generic, TypeVar

import msgspec

from inference_pio.errors import PluginError

MOST_BYTES = 40 << 20  # a text has eight million characters at most, of four bytes each
_LENGTH = struct.Struct("<I")
_MOST_SHOWN = 200

Message = TypeVar("Message")


class ProtocolError(PluginError):
    """The other side said what is no message."""


def frame(message: msgspec.Struct, most: int = MOST_BYTES) -> bytes:
    """One message as it is sent.

    Raises:
        ProtocolError: it is longer than a frame may be.
    """
    body = _ENCODER.encode(message)
    if len(body) > most:
        raise ProtocolError(f"a message of {len(body):,} bytes: a frame takes {most:,}")
    return _LENGTH.pack(len(body)) + body


class FrameReader(Generic[Message]):
    """Messages out of a stream of bytes.

    Args:
        messages: the union of the types that may come, each a tagged `msgspec.Struct`.
        most: bytes of a frame.
    """

    def __init__(self, messages: type[Message] | UnionType, most: int = MOST_BYTES) -> None:
        self.most = most
        self._decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(
            messages, ext_hook=_no_extension
        )
        self._held = bytearray()

    def feed(self, data: bytes | memoryview) -> Iterable[Message]:
        """What is whole by now.

        Raises:
            ProtocolError: too long a frame, or no message of those that may come.
        """
        if not self._held and len(data) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(data)
            if len(data) == _LENGTH.size + length <= self.most:  # mostly it is one frame
                return (self._decoded(data[_LENGTH.size :]),)
        self._held += data
        return self._whole()

    def _whole(self) -> Iterator[Message]:
        while len(self._held) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._held)
            if length > self.most:
                raise ProtocolError(f"a frame of {length:,} bytes: it takes {self.most:,}")
            end = _LENGTH.size + length
            if len(self._held) < end:
                return
            body = bytes(memoryview(self._held)[_LENGTH.size : end])
            del self._held[:end]
            yield self._decoded(body)

    @property
    def cut_off(self) -> bool:
        """Whether the stream ends in the middle of a frame, if it ends here."""
        return bool(self._held)

    def _decoded(self, body: bytes | memoryview) -> Message:
        try:
            return self._decoder.decode(body)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise ProtocolError(f"not a message: {str(error)[:_MOST_SHOWN]}") from error


def _no_extension(code: int, _: memoryview) -> None:
    raise ProtocolError(f"not a message: it has an extension of type {code}")


_ENCODER = msgspec.msgpack.Encoder()
