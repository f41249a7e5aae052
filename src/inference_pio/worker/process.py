"""A worker's process and the line to it, on an event loop."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import subprocess
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress

import msgspec

from inference_pio.children.beginning import command, environment
from inference_pio.children.frames import FrameReader, ProtocolError, frame
from inference_pio.worker.death import Death
from inference_pio.worker.messages import Boot, FromParent, FromWorker

_MOST_LOG_BYTES = 256 << 10
_AT_ONCE = 1 << 16
_CHILD = "inference_pio.worker.child:main"


class Process:
    """One child. `heard` is called for each message, `died` once, after the last of them."""

    def __init__(self, heard: Callable[[FromWorker], None], died: Callable[[Death], None]) -> None:
        self._heard, self._died = heard, died
        self._reader: FrameReader[FromWorker] = FrameReader(FromWorker)
        self._log: deque[bytes] = deque()
        self._logged = 0
        self._verdict = ""
        self._child: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None
        self._unsent, self._sending = bytearray(), False
        self._exit = self._bell = -1
        self._open = 0
        self._came = memoryview(bytearray(_AT_ONCE))

    @property
    def pid(self) -> int:
        """0 before there is one."""
        return 0 if self._child is None else self._child.pid

    @property
    def _has_exited(self) -> bool:
        return self._child is not None and self._child.returncode is not None

    async def start(self, boot: Boot, more: Mapping[str, str], place: Callable[[int], None]) -> None:
        """
        Args:
            more: variables that it is shown.
            place: called with its number before it may do anything.

        Raises:
            OSError: no process can be started.
        """
        loop = asyncio.get_running_loop()
        errors, said = os.pipe()
        try:
            ours, theirs = socket.socketpair()
        except OSError:
            os.close(errors)
            os.close(said)
            raise
        try:
            self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self._child = subprocess.Popen(
                command(_CHILD, theirs.fileno()),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                close_fds=True,
                pass_fds=(theirs.fileno(), self._bell, *boot.files.values()),
                env=environment(more),
                cwd="/",
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            os.close(errors)
            if self._bell >= 0:
                os.close(self._bell)
            raise
        finally:
            theirs.close()
            os.close(said)
        self._open = 2
        try:
            os.set_blocking(errors, False)
            self._exit = os.pidfd_open(self.pid)
            place(self.pid)
            ours.setblocking(False)
        except BaseException:
            self._give_up(ours, errors)
            raise
        self._line = ours
        loop.add_reader(errors, self._read_log, errors)
        loop.add_reader(self._exit, self._exited)
        loop.add_reader(self._bell, self._rung)
        self.say(msgspec.structs.replace(boot, bell=self._bell))

    def _give_up(self, ours: socket.socket, errors: int) -> None:
        """A child that cannot be watched does not stay."""
        assert self._child is not None
        self._child.kill()
        self._child.wait()
        ours.close()
        os.close(errors)
        os.close(self._bell)
        if self._exit >= 0:
            os.close(self._exit)

    def say(self, message: FromParent) -> None:
        """
        Raises:
            ProtocolError: it is longer than a message may be.
        """
        if self._line is None:
            return
        self._unsent += frame(message)
        self._send()

    def kill(self, verdict: str) -> None:
        """End it, and everything that it started; `verdict` is why."""
        if self._child is not None and self._child.returncode is None:
            self._verdict = self._verdict or verdict
            os.killpg(self.pid, signal.SIGKILL)

    def limit_data(self, most_bytes: int) -> None:
        """Of memory of its own (RLIMIT_DATA), for good. A root without CAP_SYS_RESOURCE may not say so of another
        user's process: what watches it holds the limit then.
        """
        with suppress(ProcessLookupError, PermissionError):
            resource.prlimit(self.pid, resource.RLIMIT_DATA, (most_bytes, most_bytes))

    # What the loop calls -----------------------------------------------------------------------------------------

    def _rung(self) -> None:
        with suppress(BlockingIOError):  # the bell is in its hands too
            os.eventfd_read(self._bell)
        self.hear()

    def hear(self) -> None:
        """What it has said so far, or that it has hung up: of that no bell tells, so look from time to time."""
        if self._line is None:
            return
        try:
            length = self._line.recv_into(self._came)
        except BlockingIOError:
            return
        except OSError:
            length = 0
        if not length:
            self._hung_up(self._line)
            return
        if not self._verdict:  # else what it still says counts no more
            try:
                for message in self._reader.feed(self._came[:length]):
                    self._heard(message)
            except ProtocolError as error:
                self.kill(f"it broke the protocol: {error}")
        if length == _AT_ONCE or self._has_exited:  # there may be more, which nobody rings for
            asyncio.get_running_loop().call_soon(self.hear)

    def _send(self) -> None:
        """As much as the socket takes; the rest when it takes more."""
        if self._line is None:
            return
        loop = asyncio.get_running_loop()
        try:
            del self._unsent[: self._line.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:  # it has hung up, which is heard
            self._unsent.clear()
        if self._unsent and not self._sending:
            loop.add_writer(self._line, self._send)
        elif self._sending and not self._unsent:
            loop.remove_writer(self._line)
        self._sending = bool(self._unsent)

    def _hung_up(self, line: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._bell)
        loop.remove_writer(line)
        line.close()
        os.close(self._bell)
        self._line = None
        if not self._has_exited and not self._verdict:
            # It closed the line; if it is not about to end by itself, it is of no use.
            loop.call_later(1.0, self.kill, "it hung up, and stayed")
        self._part_over()

    def _exited(self) -> None:
        assert self._child is not None
        self._child.wait()
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._exit)
        os.close(self._exit)
        self._part_over()
        self.hear()

    def _part_over(self) -> None:
        """Messages that were on their way when it ended come first."""
        self._open -= 1
        if self._open == 0:
            assert self._child is not None
            lines = b"".join(self._log).decode(errors="replace").splitlines()
            self._died(Death(self._child.returncode, self._verdict, lines))

    def _read_log(self, descriptor: int) -> None:
        try:
            data = os.read(descriptor, _AT_ONCE)
        except BlockingIOError:
            return
        if not data:
            asyncio.get_running_loop().remove_reader(descriptor)
            os.close(descriptor)
            return
        self._log.append(data)
        self._logged += len(data)
        while self._logged > _MOST_LOG_BYTES:
            self._logged -= len(self._log.popleft())
