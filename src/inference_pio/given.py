"""Files that a parent opened for this process, which may not open them by itself."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

_MOST_TEXT = 1 << 16
_descriptors: dict[str, int] = {}


def give(files: Mapping[str, int]) -> None:
    """From now on these paths are read through these descriptors, whatever lies there by then."""
    _descriptors.update(files)


def is_there(path: Path) -> bool:
    """Whether there is a file or folder of this name."""
    return str(path) in _descriptors or path.exists()


def names_in(folder: Path) -> list[str]:
    """What lies in a folder, sorted; of one whose files were given those that were.

    Raises:
        OSError: it cannot be listed.
    """
    given = [name for name in map(Path, _descriptors) if name.parent == folder]
    return sorted(name.name for name in given) if given else sorted(os.listdir(folder))


def keep(paths: Iterable[str]) -> None:
    """Open these of the system's own files now, as far as they are there: they tell what is true when they are read."""
    for path in paths:
        with suppress(OSError):
            _descriptors[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def text_now(path: Path) -> str:
    """What a small file of the system's says.

    Raises:
        OSError: it cannot be read.
    """
    descriptor = open_to_read(path)
    try:
        return os.pread(descriptor, _MOST_TEXT, 0).decode()
    finally:
        os.close(descriptor)


def open_to_read(path: Path, flags: int = 0) -> int:
    """A descriptor, the caller's to close. That of a given file shares its position with others of that file.

    Raises:
        OSError, ValueError: it cannot be opened.
    """
    given = _descriptors.get(str(path))
    return os.open(path, os.O_RDONLY | flags) if given is None else os.dup(given)
