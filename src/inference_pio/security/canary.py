"""What a locked process cannot do, tried in one: a child is locked in like a worker, attempts everything, and tells.

Its parent believes this and no worker: a plugin could say anything of itself.
"""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from inference_pio.security.confine import Confinement, Lock, confine
from inference_pio.security.identity import has_capabilities
from inference_pio.security.levels import SecurityLevel

_OVER = 64 << 20
_BURN_SECONDS = 0.5


class Told(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """
    locks     what was set, as the child saw it
    attempts  what came of each: the name of an error, or "done"
    cores     processors' worth of time that its threads got; None: it did not try
    """

    locks: tuple[Lock, ...]
    attempts: dict[str, str]
    cores: float | None


class Trial(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`secret` is a file that exists and that nothing grants; `outside` a folder likewise. So many `threads` compute
    for a while; 0: none. `scratch` is a folder that it may write to; empty: there is none.
    """

    confinement: Confinement
    parent: int
    secret: str
    outside: str
    threads: int
    scratch: str


def main() -> None:
    """A `Trial` comes in as JSON; `Told` goes out."""
    trial = msgspec.json.decode(sys.stdin.buffer.read(), type=Trial)
    locks = confine(trial.confinement, trial.parent)
    attempts = {name: _tried(attempt) for name, attempt in _attempts(trial).items()}
    cores = _cores(trial.threads) if trial.threads else None
    sys.stdout.buffer.write(msgspec.json.encode(Told(locks, attempts, cores)))


def _cores(threads: int) -> float:
    """What is got, by the processor's clock and the wall's; hashing lets other threads run."""
    end = time.monotonic() + _BURN_SECONDS
    block = bytes(1 << 20)

    def burn() -> None:
        while time.monotonic() < end:
            hashlib.sha256(block).digest()

    began, used = time.monotonic(), time.process_time()
    burning = [threading.Thread(target=burn) for _ in range(threads)]
    for thread in burning:
        thread.start()
    for thread in burning:
        thread.join()
    return (time.process_time() - used) / (time.monotonic() - began)


def _attempts(trial: Trial) -> dict[str, Callable[[], object]]:
    most = trial.confinement.data_bytes
    outside = Path(trial.outside)
    found: dict[str, Callable[[], object]] = {
        "read": lambda: Path(trial.secret).read_bytes(),
        "list": lambda: os.listdir(outside),
        "write": lambda: (outside / "written").write_bytes(b"x"),
        "own environment of the parent": lambda: Path(f"/proc/{trial.parent}/environ").read_bytes(),
        "tcp": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
        "udp": lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM),
        "unix socket": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM),
        "execute": lambda: os.execv("/bin/true", ["true"]),
        "fork": _fork,
        "memory without a name": lambda: os.close(os.memfd_create("x")),
        "shared memory": lambda: mmap.mmap(-1, 1 << 20, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS).close(),
        "signal to the parent": lambda: os.kill(trial.parent, 0),
        "more processors": lambda: os.sched_setaffinity(0, range(os.cpu_count() or 1)),
        "graphics": lambda: os.close(os.open("/dev/nvidiactl", os.O_RDWR)),
        "capabilities": _have_capabilities,
        "root": lambda: os.setresuid(0, 0, 0),
        "temporary file": lambda: tempfile.TemporaryFile().close(),
    }
    if trial.confinement.level is SecurityLevel.MAXIMUM_TRUST:
        del found["execute"]  # nothing would stop it, and it would be the end of this
    if trial.scratch and trial.confinement.file_bytes is not None:
        longer = trial.confinement.file_bytes + _OVER
        found["long file"] = lambda: _lengthen(Path(trial.scratch) / "long", longer)
    if most is not None:
        found["memory"] = lambda: bytearray(most + _OVER)
    return found


def _have_capabilities() -> None:
    if not has_capabilities():
        raise PermissionError(errno.EPERM, "none")


def _lengthen(file: Path, most: int) -> None:
    """Without its bytes ever being written."""
    with file.open("wb") as opened:
        opened.truncate(most)


def _fork() -> None:
    if os.fork() == 0:
        os._exit(0)


def _tried(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except MemoryError:
        return "MemoryError"
    except FileNotFoundError:  # of graphics without a card, or a temporary file without a folder
        return "ENOENT"
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return "done"
