"""How much memory there is and how much this process uses, in bytes."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil

from inference_pio.given import is_there, text_now
from inference_pio.metrics import cgroup

STATUS = "/proc/self/status"  # Linux
_ROOT = cgroup.ROOT


def available_bytes() -> int:
    """Memory that can be used without swapping: the machine's, or what the control group leaves if that is less."""
    available: int = psutil.virtual_memory().available
    return min([available, *_cgroup_room()])


def process_bytes() -> int:
    """Resident memory of this process."""
    if is_there(Path(STATUS)):
        return _status("VmRSS")
    resident: int = psutil.Process().memory_info().rss
    return resident


def peak_process_bytes() -> int:
    """Largest resident memory of this process so far."""
    if is_there(Path(STATUS)):
        # Not ru_maxrss: a process inherits that from the one that started it.
        return _status("VmHWM")
    if sys.platform == "win32":
        peak: int = psutil.Process().memory_info().peak_wset
        return peak
    import resource  # not on Windows

    peak_rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak_rss if sys.platform == "darwin" else peak_rss * 1024


def _status(field: str) -> int:
    fields = dict(line.split(":", 1) for line in text_now(Path(STATUS)).splitlines())
    return int(fields[field].removesuffix("kB")) * 1024


def _cgroup_room() -> list[int]:
    return [max(0, limit - used) for limit, used in cgroup.memory_limits(_ROOT)]
