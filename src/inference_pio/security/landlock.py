"""Landlock: which files a process and all that it starts from now on may reach, without privileges (Linux 5.13).

A domain covers the calling thread and what it starts later, never threads that exist already: it is entered while the
process has one. Reference: Documentation/userspace-api/landlock.rst of the kernel.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

# The same numbers on every architecture.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ASK_VERSION = 1
_PATH_BENEATH = 1
_SET_NO_NEW_PRIVS = 38

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_TRUNCATE, _IOCTL_DEV = 1 << 14, 1 << 15
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_TCP = 0b11  # bind and connect
_SCOPED = 0b11  # abstract unix sockets and signals, of other domains

# The first version that handles so many rights of files.
_FILE_RIGHTS = ((5, 16), (3, 15), (2, 14), (1, 13))
_WITH_TCP, _WITH_SCOPES = 4, 6


@dataclass(frozen=True)
class Reach:
    """What stays reachable: files, or whole folders.

    read     may be read
    execute  may be read and run
    write    may be read, written, created and removed, but not run
    """

    read: tuple[str, ...] = ()
    execute: tuple[str, ...] = ()
    write: tuple[str, ...] = ()


@dataclass(frozen=True)
class Domain:
    """What a domain holds; `gaps` is what this kernel leaves open, in words."""

    version: int
    gaps: tuple[str, ...]


def version() -> int:
    """The kernel's version of Landlock; 0: it has none."""
    return max(0, _call(_CREATE_RULESET, None, 0, _ASK_VERSION))


def gaps(found: int) -> tuple[str, ...]:
    """What a domain of that version does not hold."""
    known = [
        (True, "stat and chdir see any path"),
        (found < 3, "files may be truncated"),
        (found < _WITH_TCP, "TCP is open"),
        (found < 5, "devices that are open take ioctl"),
        (found < _WITH_SCOPES, "processes outside can be signalled"),
    ]
    return tuple(words for missing, words in known if missing)


def enter(reach: Reach, *, tcp: bool = False) -> Domain:
    """Leave the calling process nothing but `reach`, for good. Paths that do not exist are passed over.

    Args:
        tcp: TCP connections stay possible.

    Raises:
        OSError: the kernel has no Landlock, or refuses.
    """
    found = version()
    if not found:
        raise OSError(ctypes.get_errno(), "this kernel has no Landlock")
    every = _file_rights(found)
    handled = (
        every,
        _TCP if found >= _WITH_TCP and not tcp else 0,
        _SCOPED if found >= _WITH_SCOPES else 0,
    )
    fields = 3 if found >= _WITH_SCOPES else 2 if found >= _WITH_TCP else 1
    attributes = struct.pack("=3Q", *handled)[: 8 * fields]
    ruleset = _checked(_call(_CREATE_RULESET, attributes, len(attributes), 0), "landlock_create_ruleset")
    try:
        for path, rights in _rules(reach, every):
            _allow(ruleset, path, rights)
        _checked(_libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
        _checked(_call(_RESTRICT_SELF, ruleset, 0), "landlock_restrict_self")
    finally:
        os.close(ruleset)
    return Domain(found, gaps(found))


def _file_rights(found: int) -> int:
    return (1 << next(count for least, count in _FILE_RIGHTS if found >= least)) - 1


def _rules(reach: Reach, every: int) -> Iterator[tuple[str, int]]:
    read = _READ_FILE | _READ_DIR
    granted: Iterable[tuple[tuple[str, ...], int]] = (
        (reach.read, read),
        (reach.execute, read | _EXECUTE),
        (reach.write, every & ~_EXECUTE),
    )
    for paths, rights in granted:
        for path in paths:
            yield path, rights & every


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        allowed = rights if os.path.isdir(path) else rights & _OF_FILES
        rule = struct.pack("=Qi", allowed, beneath)
        _checked(_call(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0), f"landlock_add_rule {path}")
    finally:
        os.close(beneath)


_libc = ctypes.CDLL(None, use_errno=True)


def _call(number: int, *arguments: int | bytes | None) -> int:
    wide = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    result: int = _libc.syscall(ctypes.c_long(number), *wide)
    return result


def _checked(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result
