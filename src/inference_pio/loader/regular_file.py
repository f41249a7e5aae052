"""Opening and reading a file that somebody else wrote: regular files only, and never a wait or a crash."""

from __future__ import annotations

import io
import os
import stat
import threading
from pathlib import Path

from inference_pio.errors import ModelFileError
from inference_pio.loader.closing import Closing


class RegularFile(Closing):
    """A regular file, open for reading. Bytes are copied, not mapped: a file that shrinks while it is read is then an
    error and not the end of the process, and every tensor owns its memory.

    Raises:
        ModelFileError: there is none, it may not be read, or it is a pipe, socket, device or directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # Without O_NONBLOCK, opening a pipe that nobody writes to would wait for ever.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        try:
            descriptor = os.open(path, flags)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise ModelFileError(path, f"cannot be opened: {reason}") from error
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            os.close(descriptor)
            raise ModelFileError(path, f"is {_kind(found.st_mode)}, not a file")
        self.size = found.st_size
        self._file = io.FileIO(descriptor, "rb")
        self._lock = threading.Lock()

    def read(self, offset: int, count: int) -> bytes:
        """`count` bytes from `offset`, which the caller has checked against `size`."""
        buffer = bytearray(count)
        self.read_into(offset, memoryview(buffer))
        return bytes(buffer)

    def read_into(self, offset: int, target: memoryview) -> None:
        """Fill `target` (bytes) from `offset`."""
        try:
            with self._lock:
                self._file.seek(offset)
                done = 0
                while done < len(target):
                    count = self._file.readinto(target[done:])
                    if not count:
                        raise ModelFileError(
                            self.path,
                            f"ends at byte {offset + done} of {self.size}: it changed while it was read",
                        )
                    done += count
        except OSError as error:
            raise ModelFileError(self.path, f"cannot be read: {error.strerror}", byte=offset) from error
        except ValueError as error:
            raise ModelFileError(self.path, "was closed before all of it was read") from error

    def close(self) -> None:
        self._file.close()


def _kind(mode: int) -> str:
    for is_kind, name in (
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    ):
        if is_kind(mode):
            return name
    return "something else"
