"""Which files a locked process reaches, by how far its plugin is trusted."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from inference_pio.security.landlock import Reach
from inference_pio.security.levels import SecurityLevel

# The loader of libraries, the processors, the clock's zone, and devices without which nothing runs.
_SYSTEM_READ = (
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/sys/devices/system/cpu",
    "/sys/devices/system/node",
    "/sys/kernel/mm/transparent_hugepage",
    "/usr/share/zoneinfo",
    "/dev/urandom",
    "/dev/zero",
)
_SYSTEM_EXECUTE = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib")
_NOWHERE = "/dev/null"
_GPU_DEVICES = ("/dev/nvidia0", "/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/dri")


@dataclass(frozen=True)
class Places:
    """
    imports  where code is imported from
    model    files and folders of the model
    read     what else its operator grants
    scratch  the one folder it may write to; None: none
    cache    the model cache, of which it reads how models run; None: it has no business there
    """

    imports: Sequence[str]
    model: Sequence[Path]
    cache: Path | None
    scratch: Path | None = None
    read: Sequence[Path] = ()
    gpu: bool = False


def reach_of(level: SecurityLevel, places: Places) -> Reach:
    """What a `Confinement` leaves.

    LOW_TRUST reads no model: its files are open when it starts. Folders of models it may list, which tells names only.
    """
    read = [*_SYSTEM_READ, *map(str, _settings(places.cache)), *map(str, places.read)]
    write = [_NOWHERE, *([] if places.scratch is None else [str(places.scratch)])]
    if places.gpu:
        write += _GPU_DEVICES
    if level is not SecurityLevel.LOW_TRUST:
        read += [*map(str, places.model), "/proc/self", "/sys/fs/cgroup"]
    if level is SecurityLevel.HIGH_TRUST:
        read += ["/proc", "/sys"]
    return Reach(_once(read), _once([*_SYSTEM_EXECUTE, *interpreter(), *places.imports]), _once(write))


def interpreter() -> list[str]:
    """Where Python itself lies."""
    return [sys.prefix, sys.base_prefix, os.path.dirname(os.path.realpath(sys.executable))]


def _settings(cache: Path | None) -> list[Path]:
    """Of the model cache what says how models run, and no model."""
    if cache is None:
        return []
    return [cache / name for name in ("hardware.json", "receipts", "tuned")]


def _once(paths: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(paths))
