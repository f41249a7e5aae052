"""The one folder that a worker may write to: made by its parent, added up while it runs, gone when it has ended."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_FOLDER = "scratch"
_MOST_FILES = 20_000
_MOST_LEVELS = 8
_BLOCK = 512  # what st_blocks counts in


@dataclass(frozen=True)
class Scratch:
    """
    most_bytes  of all files together; None: no limit
    """

    folder: Path
    most_bytes: int | None

    @classmethod
    def below(cls, home: Path, most_bytes: int | None) -> Scratch:
        """A new one in the model cache.

        Raises:
            OSError: there can be none.
        """
        (home / _FOLDER).mkdir(mode=0o755, parents=True, exist_ok=True)
        name = f"{os.getpid()}-{_started(os.getpid())}-{secrets.token_hex(4)}"
        return cls(home / _FOLDER / name, most_bytes)

    def make(self, owner: tuple[int, int] | None = None) -> None:
        """Empty, for (uid, gid); what engines left that ended without wiping theirs goes.

        Raises:
            OSError: it cannot be made.
        """
        _sweep(self.folder.parent)
        self.wipe()
        self.folder.mkdir(mode=0o700)
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
    for left in above.iterdir():
        pid, _, rest = left.name.partition("-")
        if pid.isdigit() and _started(int(pid)) != rest.partition("-")[0]:
            with suppress(OSError):
                _remove(left)


def _started(pid: int) -> str:
    """When a process began, in the kernel's ticks: with its number, nobody else's. Empty: there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[19].decode()
    except OSError:
        return ""
