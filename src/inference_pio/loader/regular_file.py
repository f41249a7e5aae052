"""Opening and reading a file that somebody else wrote: regular files only, and never a wait or a crash."""

from __future__ import annotations

import io
import os
import stat
import threading
from pathlib import Path

from inference_pio.errors import ModelFileError
from inference_pio.given import open_to_read
from inference_pio.loader.closing import Closing

_POSITIONED = hasattr(os, "preadv")


class RegularFile(Closing):
    """A regular file, open for reading. Bytes are copied, not mapped: a file that shrinks while it is read is then an
    error and not the end of the process, and every tensor owns its memory.

    Raises:
        ModelFileError: there is none, it may not be read, or it is a pipe, socket, device or directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        descriptor = _open(path)
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
                done = 0
                while done < len(target):
                    count = self._read_some(offset + done, target[done:])
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

    def _read_some(self, offset: int, target: memoryview) -> int | None:
        if _POSITIONED:  # a descriptor that was given shares its position with others of the same file
            return os.preadv(self._file.fileno(), [target], offset)
        self._file.seek(offset)
        return self._file.readinto(target)

    def close(self) -> None:
        self._file.close()


def read_whole(path: Path, most: int, what: str) -> bytes:
    """All of a small file.

    Raises:
        ModelFileError: there is none, it cannot be read, or it has more than `most` bytes, too many for `what`.
    """
    with RegularFile(path) as file:
        if file.size > most:
            raise ModelFileError(path, f"{file.size} bytes is too large for {what}")
        return file.read(0, file.size)


def _open(path: Path) -> int:
    # Without O_NONBLOCK, opening a pipe that nobody writes to would wait for ever.
    flags = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        return open_to_read(path, flags)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ModelFileError(path, f"cannot be opened: {reason}") from error


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
