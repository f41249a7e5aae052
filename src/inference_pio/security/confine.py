"""A process locks itself in: limits, files, system calls; for good, and before it imports anything of a stranger's."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from inference_pio.security import landlock, seccomp
from inference_pio.security.identity import give_up_privileges
from inference_pio.security.levels import SecurityLevel
from inference_pio.security.policy import refusals

_SET_PARENT_DEATH_SIGNAL, _SET_DUMPABLE = 1, 4
_THREADS = Path("/proc/self/task")


_NOTHING = landlock.Reach()


@dataclass(frozen=True)
class Confinement:
    """What a process is to leave itself; its parent decides.

    data_bytes           of memory of its own (RLIMIT_DATA); None: no limit of its own
    file_bytes           of one file that it writes; None: no limit
    open_files           descriptors
    processors           on which it may run; empty: all
    user                 (uid, gid) it becomes where it is root; None: it stays who it is, without privileges
    reading              as that user it reads what `reach` leaves it, whoever may
    reach                files that stay reachable
    dies_with_parent     at once. The kernel means the thread that started it: not for a child that outlives that
    """

    level: SecurityLevel
    data_bytes: int | None = None
    file_bytes: int | None = 0
    open_files: int = 1024
    processors: tuple[int, ...] = ()
    user: tuple[int, int] | None = None
    reading: bool = False
    reach: landlock.Reach = _NOTHING
    dies_with_parent: bool = True


@dataclass(frozen=True)
class Lock:
    """One mechanism; `gaps` is what it leaves open, or why it is missing."""

    name: str
    state: Literal["set", "partly set", "missing"]
    gaps: tuple[str, ...] = ()


def less_held(proved: Sequence[Lock], told: Sequence[Lock]) -> str:
    """The first lock of which a process says that it holds less than was proved of another one in the same place, with
    what it says of it; empty where there is none.
    """
    there = {lock.name: lock for lock in told}
    for lock in proved:
        if lock.state == "missing":
            continue
        found = there.get(lock.name, Lock(lock.name, "missing", ("not a word of it",)))
        more = [gap for gap in found.gaps if gap not in lock.gaps]
        if found.state not in ("set", lock.state) or more:
            return f"{lock.name}: {found.state}{', '.join(['', *more])}"
    return ""


def confine(wanted: Confinement, parent: int) -> tuple[Lock, ...]:
    """Lock this process; whoever asked for it decides whether what is missing matters.

    Args:
        parent: the process that this one must not outlive.

    Raises:
        RuntimeError: other threads run already, which files would not be hidden from.
        SystemExit: the parent has gone.
    """
    if (threads := _threads()) > 1:
        raise RuntimeError(f"{threads} threads run already: a process is locked while it has one")
    locked = wanted.level is not SecurityLevel.MAXIMUM_TRUST
    steps: list[tuple[str, Callable[[], tuple[str, ...] | None]]] = [
        ("limits of resources", lambda: _limit(wanted))
    ]
    if wanted.processors:
        steps.append(("processors", lambda: _stay_on(wanted.processors)))
    if locked:  # while folders can still be opened that another user may not enter
        steps.append(("files", lambda: landlock.enter(wanted.reach).gaps))
    steps += [
        ("privileges", lambda: give_up_privileges(wanted.user, reading=wanted.reading)),
        # A change of user takes this and what follows back.
        ("hidden from its equals", lambda: _prctl(_SET_DUMPABLE, 0)),
    ]
    if wanted.dies_with_parent:
        steps.append(("dies with its parent", lambda: _die_with(parent)))
    if locked:
        steps.append(("system calls", lambda: _refuse_calls(wanted.level)))
    return tuple(_tried(name, step) for name, step in steps)


def _tried(name: str, action: Callable[[], tuple[str, ...] | None]) -> Lock:
    try:
        gaps = action() or ()
    except (OSError, ValueError) as error:
        return Lock(name, "missing", (str(error),))
    return Lock(name, "partly set" if gaps else "set", gaps)


def _threads() -> int:
    try:
        return len(os.listdir(_THREADS))
    except (
        OSError
    ):  # no /proc: as many as Python knows of would be no proof, and the filter reaches all anyway
        return 1


def _die_with(parent: int) -> None:
    _prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:  # it went before the line above
        raise SystemExit(1)


def _limit(wanted: Confinement) -> None:
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: wanted.file_bytes,
        resource.RLIMIT_NOFILE: wanted.open_files,
        resource.RLIMIT_DATA: wanted.data_bytes,
    }
    # A file that would grow too long is an error of that write, and not the end.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    for kind, most in limits.items():
        if most is None:
            continue
        hard = resource.getrlimit(kind)[1]
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (allowed, allowed))


def _stay_on(processors: tuple[int, ...]) -> None:
    os.sched_setaffinity(0, processors)


def _refuse_calls(level: SecurityLevel) -> None:
    seccomp.install(refusals(level))


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
