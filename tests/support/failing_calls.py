"""Something that writes files, stopped at each of its calls to the system in turn, and within each of its files.

    python -c … '<name of an action>' <folder>

It runs in a process of its own: each try is a fork of it that dies, or meets a full disk, at the n-th call.
"""

from __future__ import annotations

import builtins
import errno
import io
import itertools
import os
import resource
import signal
from collections.abc import Callable, Iterator
from typing import Any, Literal

_CALLS = ("open", "mkdir", "replace", "rename", "unlink", "rmdir", "fsync", "chmod", "utime")
How = Literal["dies", "full disk"]
# It got through although a call was refused; without meeting one; it died; it was told that the disk is full.
DONE, UNHARMED, DIED, REFUSED = 0, 4, 9, 3
_met: list[str] = []


def every_stop(act: Callable[[], object], how: How, files: tuple[int, ...] = ()) -> Iterator[tuple[str, int]]:
    """Where it was stopped, and what came of it: `act` at its first call, its second … until none is left; and with
    files that take no more than so many bytes. Whoever iterates looks, between two tries, at what was left.

    Raises:
        AssertionError: it ended in another way than by that.
    """
    for place in itertools.count():
        code = _forked(act, lambda place=place: _stop_at(place, how))
        yield f"{how} at call {place}", code
        if code == UNHARMED:
            break
    for size in files:
        yield f"{how} at byte {size}", _forked(act, lambda size=size: _short_files(size, how))


def _forked(act: Callable[[], object], prepare: Callable[[], None]) -> int:
    child = os.fork()
    if child:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return DIED if status == -signal.SIGXFSZ else status
    code = 1
    try:
        prepare()
        act()
        code = DONE if _met else UNHARMED
    except OSError as error:
        code = REFUSED if error.errno in (errno.ENOSPC, errno.EFBIG) else 1
        if code == 1:
            raise
    finally:
        os._exit(code)


def _stop_at(place: int, how: How) -> None:
    left = itertools.count()

    def stopping(call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **named: Any) -> Any:
            if next(left) == place:
                if how == "dies":
                    os._exit(DIED)
                _met.append(how)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return call(*arguments, **named)

        return called

    for name in _CALLS:
        setattr(os, name, stopping(getattr(os, name)))
    io.open = builtins.open = stopping(builtins.open)


def _short_files(size: int, how: How) -> None:
    """In the middle of a write: the kernel writes what fits, and then ends the process or refuses the rest."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL if how == "dies" else signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
