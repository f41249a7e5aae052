"""A control group for one worker, where the system lets this process make one (Linux).

Version 2 where it was delegated: the process's own group hands memory and processors on, and holds no process itself,
because a group that does may not. Version 1 where this process may write to its own groups, as root may. Reference:
admin-guide/cgroup-v1 and cgroup-v2 of the kernel's documentation.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from inference_pio.metrics.cgroup import ROOT, own_folder

_PERIOD_US = 100_000
_V2 = ""
_CONTROLLERS = ("memory", "cpu")
_ENGINE = "inference-pio-engine"


@dataclass(frozen=True)
class Leaf:
    """`folders` are by controller; version 2 has one folder for all, under ""."""

    version: Literal[1, 2]
    folders: Mapping[str, Path]

    @property
    def holds(self) -> tuple[str, ...]:
        """Which of "memory" and "cpu"."""
        return tuple(self.folders) if self.version == 1 else _CONTROLLERS

    def limit_memory(self, most_bytes: int) -> None:
        """Everything counts: files in memory, shared memory, children; the system ends what goes beyond."""
        if self.version == 2:
            folder = self.folders[_V2]
            _write(folder / "memory.max", most_bytes)
            with suppress(OSError):  # a system without swap has none of it
                _write(folder / "memory.swap.max", 0)
            _write(folder / "memory.oom.group", 1)
        elif "memory" in self.folders:
            folder = self.folders["memory"]
            _write(folder / "memory.limit_in_bytes", most_bytes)
            with suppress(OSError):
                _write(folder / "memory.memsw.limit_in_bytes", most_bytes)

    def limit_processors(self, percent: float) -> None:
        """100 is one."""
        quota = max(1000, int(percent * _PERIOD_US / 100))
        if self.version == 2:
            _write(self.folders[_V2] / "cpu.max", f"{quota} {_PERIOD_US}")
        elif "cpu" in self.folders:
            _write(self.folders["cpu"] / "cpu.cfs_period_us", _PERIOD_US)
            _write(self.folders["cpu"] / "cpu.cfs_quota_us", quota)

    def take_in(self, pid: int) -> None:
        """A process, before it has done anything."""
        for folder in self.folders.values():
            _write(folder / "cgroup.procs", pid)

    def ran_out(self) -> bool:
        """Whether the system has ended something for memory."""
        with suppress(OSError, KeyError, ValueError):
            if self.version == 2:
                return _count(self.folders[_V2] / "memory.events", "oom_kill") > 0
            return _count(self.folders["memory"] / "memory.oom_control", "oom_kill") > 0
        return False

    def remove(self) -> None:
        """Once every process in it has ended."""
        for folder in self.folders.values():
            with suppress(OSError):
                folder.rmdir()


def make_leaf(name: str, root: Path = ROOT) -> Leaf | None:
    """A group called `name` for this process's workers; None where it may make none."""
    with suppress(OSError):
        if (parent := _delegated(own_folder(root, _V2))) is not None:
            return Leaf(2, {_V2: _made(parent / name)})
    folders = {}
    for controller in _CONTROLLERS:
        group = own_folder(root, controller)
        if (group / "cgroup.procs").exists() and os.access(group, os.W_OK):
            with suppress(OSError):
                folders[controller] = _made(group / name)
    return Leaf(1, folders) if folders else None


def _delegated(own: Path) -> Path | None:
    """The group below which workers get theirs. Where this process is alone in one that it may divide, it moves into a
    group of its own below: one that hands controllers on may hold no process.
    """
    if own.name == _ENGINE:
        return own.parent
    offered = (own / "cgroup.controllers").read_text().split()
    inside = (own / "cgroup.procs").read_text().split()
    alone = inside == [str(os.getpid())]
    if not (
        set(_CONTROLLERS) <= set(offered) and alone and os.access(own / "cgroup.subtree_control", os.W_OK)
    ):
        return None
    engine = _made(own / _ENGINE)
    try:
        _write(engine / "cgroup.procs", os.getpid())
        _write(own / "cgroup.subtree_control", "+memory +cpu")
    except OSError:
        _write(own / "cgroup.procs", os.getpid())
        engine.rmdir()
        raise
    return own


def _made(folder: Path) -> Path:
    _sweep(folder.parent)
    folder.mkdir()
    return folder


def _sweep(parent: Path) -> None:
    """Groups of engines that ended without removing them; one with a process in it stays."""
    for left in parent.glob("inference-pio-[0-9]*-[0-9]*"):
        if not Path(f"/proc/{left.name.split('-')[2]}").exists():
            with suppress(OSError):
                left.rmdir()


def _write(file: Path, value: object) -> None:
    file.write_text(f"{value}\n")


def _count(file: Path, key: str) -> int:
    fields = dict(line.split() for line in file.read_text().splitlines())
    return int(fields[key])
