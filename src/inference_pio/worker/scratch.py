"""The one folder that a worker may write to: made by its parent, added up while it runs, gone when it has ended."""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_FOLDER = "scratch"
_MOST_FILES = 20_000
_MOST_LEVELS = 8
_NEW_SECONDS = 60.0
_BLOCK = 512  # what st_blocks counts in


@dataclass
class Scratch:
    """While it is there, this process holds a lock on it: whoever gets that finds a folder that an engine left.

    most_bytes  of all files together; None: no limit
    """

    folder: Path
    most_bytes: int | None
    _lock: int | None = None

    @classmethod
    def below(cls, home: Path, most_bytes: int | None) -> Scratch:
        """A new one in the model cache.

        Raises:
            OSError: there can be none.
        """
        (home / _FOLDER).mkdir(mode=0o755, parents=True, exist_ok=True)
        return cls(home / _FOLDER / secrets.token_hex(8), most_bytes)

    def make(self, owner: tuple[int, int] | None = None) -> None:
        """Empty, for (uid, gid); what engines left that ended without wiping theirs goes.

        Raises:
            OSError: it cannot be made.
        """
        _sweep(self.folder.parent)
        self.wipe()
        self.folder.mkdir(mode=0o700)
        self._lock = _locked(self.folder)
        if owner is not None:
            os.chown(self.folder, *owner)

    def problem(self) -> str | None:
        """Why whoever writes there has to end; None: nothing."""
        used = count = 0
        try:
            for entry in _entries(self.folder):
                used += entry.stat(follow_symlinks=False).st_blocks * _BLOCK
                count += 1
                if count > _MOST_FILES:
                    return f"more than {_MOST_FILES:,} files in the folder that it may write to"
        except _TooDeep:
            return f"folders more than {_MOST_LEVELS} deep in the one that it may write to"
        except FileNotFoundError:  # it was removed while we looked
            return None
        except OSError as error:
            return f"the folder that it may write to cannot be looked through: {error.strerror}"
        if self.most_bytes is not None and used > self.most_bytes:
            return f"disk_space_gb {self.most_bytes / 1e9:g} exceeded: its files have {used / 1e9:.3g} GB"
        return None

    def wipe(self) -> None:
        """With everything in it, whatever that is. What the system does not let go the next engine sweeps."""
        with suppress(OSError):
            _remove(self.folder)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


class _TooDeep(Exception):
    pass


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """All below it; links are not followed."""
    left = [(str(folder), 1)]
    while left:
        path, level = left.pop()
        if level > _MOST_LEVELS:
            raise _TooDeep
        with os.scandir(path) as found:
            for entry in found:
                if entry.is_dir(follow_symlinks=False):
                    left.append((entry.path, level + 1))
                yield entry


def _remove(folder: Path) -> None:
    """However deep folders lie in it, and whatever rights they have: what lies in a folder below moves up first."""
    with suppress(FileNotFoundError):
        _open_up(folder)
        while folders := _emptied(folder):
            for below in folders:
                _open_up(below)
                for inner in _emptied(below):
                    _open_up(inner)
                    inner.rename(folder / f".{secrets.token_hex(8)}")
                below.rmdir()
        folder.rmdir()


def _emptied(folder: Path) -> list[Path]:
    """Its folders; all else in it is removed."""
    with os.scandir(folder) as found:
        entries = list(found)
    for entry in entries:
        if not entry.is_dir(follow_symlinks=False):
            os.unlink(entry.path)
    return [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]


def _open_up(folder: Path) -> None:
    with suppress(PermissionError):  # of another user's, where this one may do everything
        folder.chmod(0o700)


def _sweep(above: Path) -> None:
    """What is not locked; one that was made just now may be about to be."""
    for left in above.iterdir():
        with suppress(OSError):
            if time.time() - left.stat().st_mtime < _NEW_SECONDS or (lock := _locked(left)) is None:
                continue
            try:
                _remove(left)
            finally:
                os.close(lock)


def _locked(folder: Path) -> int | None:
    """A descriptor that holds a lock on the folder; None where somebody has it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
