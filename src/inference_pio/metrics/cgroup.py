"""What the control groups of this process allow it (Linux): processors and memory.

Versions 1 and 2 of the interface are read, whichever is there, and every level from the process's own group up to the
root: the least one holds (kernel documentation, admin-guide/cgroup-v1 and cgroup-v2).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")


def cpu_quota(root: Path = ROOT) -> float | None:
    """Processors' worth of time per second that may be used, 1.5 for one and a half; None: no limit."""
    found = []
    for folder in _levels(root, ""):
        stated = _text(folder / "cpu.max")
        if stated is not None and not stated.startswith("max"):
            quota, period = stated.split()
            found.append(int(quota) / int(period))
    for folder in _levels(root, "cpu"):
        quota, period = (_text(folder / f"cpu.cfs_{name}_us") or "-1" for name in ("quota", "period"))
        if int(quota) > 0 and int(period) > 0:
            found.append(int(quota) / int(period))
    return min(found, default=None)


def memory_limits(root: Path = ROOT) -> list[tuple[int, int]]:
    """(limit, used) in bytes of every level that has a limit."""
    found = []
    for controller, limit, used in (
        ("", "memory.max", "memory.current"),
        ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        for folder in _levels(root, controller):
            most, now = _text(folder / limit), _text(folder / used)
            if most is not None and most.isdigit() and now is not None:
                found.append((int(most), int(now)))
    return found


def own_folder(root: Path, controller: str) -> Path:
    """Of the process's group; "" is version 2, which has one tree for everything."""
    tree = root / "sys/fs/cgroup" / controller
    folder = tree / _group(root, controller)
    # A container may see its group's name as the machine knows it, and its own group as the root of the tree.
    return tree if ".." in folder.parts or not folder.is_dir() else folder


def _levels(root: Path, controller: str) -> Iterator[Path]:
    """Folders of the process's group and of those around it."""
    tree = root / "sys/fs/cgroup" / controller
    folder = own_folder(root, controller)
    yield folder
    while folder != tree:
        folder = folder.parent
        yield folder


def _group(root: Path, controller: str) -> str:
    for line in (_text(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return path.strip("/")
    return ""


def _text(file: Path) -> str | None:
    try:
        return file.read_text().strip() if file.is_file() else None
    except PermissionError:  # a process that is locked in: whoever locked it has told it what it may use
        return None
