"""A child's end of the line: messages in and out, each call until it is done."""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Iterator
from types import UnionType
from typing import Generic, TypeVar

import msgspec

from inference_pio.children.frames import MOST_BYTES, FrameReader, frame

_AT_ONCE = 1 << 18
_UNHEARD = 1 << 16  # a socket takes that much while nobody listens

Heard = TypeVar("Heard")
Said = TypeVar("Said", bound=msgspec.Struct)


class Line(Generic[Heard, Said]):
    """`hear` is for one thread, `say` for any.

    bell  descriptor of an event (eventfd) to ring for who waits on that, and not on the socket; -1: there is none.
          Linux takes a message on a socket as a sign that its sender will wait now, and lets who is woken have the
          sender's processor. An engine does not wait.
    """

    def __init__(
        self, connected: socket.socket, heard: type[Heard] | UnionType, most: int = MOST_BYTES
    ) -> None:
        """`most` are bytes of one message."""
        self._socket, self._most = connected, most
        self._reader: FrameReader[Heard] = FrameReader(heard, most)
        self._ready: Iterator[Heard] = iter(())
        # One for all: where each message took as much and gave back what it did not fill, the heap came to be full of
        # holes that are too small for the next.
        self._came = memoryview(bytearray(_AT_ONCE))
        self._saying = threading.Lock()
        self._coming = select.poll()
        self._coming.register(connected, select.POLLIN)
        self.bell = -1

    def hear(self) -> Heard | None:
        """The next message; None where the other side hung up.

        Raises:
            ProtocolError: what came is no message.
            TimeoutError: nothing came for as long as the socket is given.
        """
        while True:
            for message in self._ready:
                return message
            self._wait()
            length = self._socket.recv_into(self._came)
            if not length:
                return None
            self._ready = iter(self._reader.feed(self._came[:length]))

    def say(self, message: Said) -> None:
        """
        Raises:
            OSError: the other side hung up.
        """
        written = frame(message, self._most)
        with self._saying:
            if self.bell < 0:
                self._socket.sendall(written)
                return
            for begin in range(0, len(written), _UNHEARD):
                self._socket.sendall(written[begin : begin + _UNHEARD])
                os.eventfd_write(self.bell, 1)

    def _wait(self) -> None:
        # Linux wakes whoever waits in recv each time that the other side has read something; poll it does not. Of the
        # socket's patience poll knows nothing.
        patience = self._socket.gettimeout()
        if not self._coming.poll(None if patience is None else patience * 1000):
            raise TimeoutError("timed out")

    def close(self) -> None:
        self._socket.close()
