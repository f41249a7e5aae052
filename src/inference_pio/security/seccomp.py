"""Filters of system calls: what a locked process asks the kernel for in vain.

A filter is a program of the classic Berkeley packet filter that the kernel runs in front of each call. It cannot be
taken away, and threads that exist already get it as well. Reference: Documentation/userspace-api/seccomp_filter.rst of
the kernel.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from inference_pio.security.syscalls import Architecture, this_architecture

# Of the packet filter: load a word, compare and jump, mask, return.
_LOAD, _IF_EQUAL, _IF_LEAST, _IF_ANY, _MASK, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_ALLOW, _KILL, _FAIL = 0x7FFF0000, 0x80000000, 0x00050000
# Of struct seccomp_data: the number, the architecture, the first of six arguments of 8 bytes.
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_MODE_FILTER, _ALL_THREADS = 1, 1
_SET_NO_NEW_PRIVS = 38


@dataclass(frozen=True)
class When:
    """A condition on the lower 32 bits of an argument, from 0."""

    argument: int
    test: Literal["all of", "none of", "any of", "is", "is not"]
    value: int


@dataclass(frozen=True)
class Refusal:
    """A call that fails with `error` where all of `when` hold."""

    call: str
    error: int = errno.EPERM
    when: tuple[When, ...] = ()


def program(refusals: Iterable[Refusal], architecture: Architecture) -> bytes:
    """The filter: calls of another architecture or convention kill the process; refused ones fail; all others pass."""
    lines = [
        _line(_LOAD, _ARCHITECTURE),
        _line(_IF_EQUAL, architecture.audit, yes=1),
        _line(_RETURN, _KILL),
        _line(_LOAD, _NUMBER),
    ]
    if architecture.first_wide:
        lines += [_line(_IF_LEAST, architecture.first_wide, no=1), _line(_RETURN, _KILL)]
    for refusal in refusals:
        if refusal.call in architecture.numbers:
            lines += _refuse(architecture.numbers[refusal.call], refusal)
    return b"".join([*lines, _line(_RETURN, _ALLOW)])


def install(refusals: Sequence[Refusal]) -> int:
    """Refuse these calls to all threads of the process, for good; how many instructions it takes.

    Raises:
        OSError: the kernel has no filters, or they are not written for this machine.
    """
    architecture = this_architecture()
    if architecture is None:
        raise OSError(errno.ENOSYS, "filters of system calls are written for x86_64 and aarch64 only")
    written = program(refusals, architecture)
    count = len(written) // 8
    header = struct.pack("HxxxxxxP", count, ctypes.addressof(kept := ctypes.create_string_buffer(written)))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    flags = [ctypes.c_long(each) for each in (architecture.seccomp, _MODE_FILTER, _ALL_THREADS)]
    if libc.syscall(*flags, header):
        code = ctypes.get_errno()
        raise OSError(code, f"seccomp: {os.strerror(code)}")
    del kept
    return count


def _refuse(number: int, refusal: Refusal) -> list[bytes]:
    """Fails where number and conditions are met; else the number is loaded again for what follows."""
    body = [line for when in refusal.when for line in (_line(_LOAD, _ARGUMENTS + 8 * when.argument), when)]
    fails = _line(_RETURN, _FAIL | refusal.error)
    if not body:
        return [_line(_IF_EQUAL, number, no=1), fails]
    tests = [line for each in body for line in ([each] if isinstance(each, bytes) else _test(each))]
    # Each test jumps over what is left of the tests and the failure where it does not hold.
    placed = [
        line if isinstance(line, bytes) else line.jumping(len(tests) - place)
        for place, line in enumerate(tests)
    ]
    return [_line(_IF_EQUAL, number, no=len(placed) + 2), *placed, fails, _line(_LOAD, _NUMBER)]


@dataclass(frozen=True)
class _Jump:
    """Goes on where the comparison turns out as `holds`, and else as far as it is told."""

    code: int
    value: int
    holds: bool

    def jumping(self, far: int) -> bytes:
        return _line(self.code, self.value, **{"no" if self.holds else "yes": far})


def _test(when: When) -> list[bytes | _Jump]:
    if when.test == "all of":
        return [_line(_MASK, when.value), _Jump(_IF_EQUAL, when.value, True)]
    if when.test in ("any of", "none of"):
        return [_Jump(_IF_ANY, when.value, when.test == "any of")]
    return [_Jump(_IF_EQUAL, when.value, when.test == "is")]


def _line(code: int, value: int, *, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("HBBI", code, yes, no, value)
