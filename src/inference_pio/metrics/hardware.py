"""What this machine is and what of it this process may use. What cannot be told is None, with the reason beside it."""

from __future__ import annotations

import hashlib
import math
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec
import psutil

from inference_pio.metrics import cgroup
from inference_pio.metrics.memory import available_bytes

T = TypeVar("T")
Reasons = dict[str, str]
_GIB = 2**30


class Cache(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One cache of the first processor; `kind` is "data", "instruction" or "unified"."""

    level: int
    kind: str
    bytes: int
    shared_by: int


class Processor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """
    cores         physical ones
    threads       of the machine, as its scheduler counts processors
    affinity      those of them that this process may run on
    quota         processors' worth of time that its control group allows; None: no limit
    usable        threads that this process can keep busy: the affinity, within the quota rounded up
    instructions  the flags that matter to products of matrices
    kernels       the instruction set that the native kernels use here; "" without them
    """

    name: str
    architecture: str
    cores: int | None
    threads: int
    affinity: int
    quota: float | None
    usable: int
    instructions: tuple[str, ...]
    caches: tuple[Cache, ...]
    kernels: str


class Memory(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`limit_bytes` of the control group, where that is less than what is installed; None: no limit."""

    installed_bytes: int
    available_bytes: int
    swap_bytes: int
    limit_bytes: int | None


class Gpu(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    memory_bytes: int


class Machine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`unknown` maps the name of a fact that is None or empty, and should not be, to the reason."""

    processor: Processor
    memory: Memory
    gpus: tuple[Gpu, ...]
    unknown: Reasons

    @property
    def fingerprint(self) -> str:
        """16 hex digits: equal where what was measured holds. The memory counts in GiB, what is free not at all."""
        processor = msgspec.json.encode(self.processor)
        rest = [
            self.memory.installed_bytes // _GIB,
            [[gpu.name, gpu.memory_bytes // _GIB] for gpu in self.gpus],
        ]
        return hashlib.sha256(processor + msgspec.json.encode(rest)).hexdigest()[:16]

    @property
    def specs(self) -> dict[str, float | int | str]:
        """What `DynamicConfigManager.get_optimal_config` takes as `hardware_specs`."""
        return {
            "gpu_memory_gb": max((gpu.memory_bytes / 1e9 for gpu in self.gpus), default=0),
            "gpu_count": len(self.gpus),
            "cpu_cores": self.processor.usable,
            "cpu_instructions": self.processor.kernels or " ".join(self.processor.instructions),
            "memory_gb": min(self.memory.installed_bytes, self.memory.limit_bytes or math.inf) / 1e9,
            "available_memory_gb": self.memory.available_bytes / 1e9,
        }


_INSTRUCTIONS = (
    "avx",
    "avx2",
    "fma",
    "f16c",
    "avx512f",
    "avx512_bf16",
    "avx512_vnni",
    "avx_vnni",
    "amx_bf16",
    "amx_int8",
    *("asimd", "asimddp", "asimdhp", "bf16", "i8mm", "sve", "sve2"),
)


def read_machine(kernels: str, gpus: tuple[Gpu, ...], root: Path = cgroup.ROOT) -> Machine:
    """The facts, in a few milliseconds; nothing is measured.

    Args:
        kernels: the native kernels' instruction set.
        gpus: as torch sees them.
        root: where proc and sys lie.
    """
    unknown: Reasons = {}
    return Machine(_processor(kernels, root, unknown), _memory(root, unknown), gpus, unknown)


def usable_threads(root: Path = cgroup.ROOT) -> int:
    """Threads that this process can keep busy."""
    return _usable(_affinity(), told({}, "quota", lambda: cgroup.cpu_quota(root)))


def compute_threads(root: Path = cgroup.ROOT) -> int:
    """As many as torch takes by itself where it sees the whole machine: one for each core, as far as they can be kept
    busy.
    """
    return min(usable_threads(root), _cores(root) or usable_threads(root))


def cpu_name(root: Path = cgroup.ROOT) -> str:
    return _cpuinfo(root)[1] or platform.processor() or platform.machine()


def told(unknown: Reasons, name: str, ask: Callable[[], T]) -> T | None:
    """What `ask` finds; None and a reason where the system does not let it, or says what is not understood."""
    try:
        return ask()
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        unknown[name] = f"{place}{error.strerror or error}"
    except (ValueError, LookupError) as error:
        unknown[name] = f"not understood: {error}"
    return None


def _processor(kernels: str, root: Path, unknown: Reasons) -> Processor:
    flags, name = told(unknown, "instructions", lambda: _cpuinfo(root)) or (frozenset(), "")
    quota, affinity = told(unknown, "quota", lambda: cgroup.cpu_quota(root)), _affinity()
    cores = told(unknown, "cores", lambda: _cores(root))
    if cores is None:
        unknown.setdefault("cores", "the system does not say")
    caches = told(unknown, "caches", lambda: _caches(root)) or ()
    if not caches:
        unknown.setdefault("caches", "the system does not say")
    return Processor(
        name=name or platform.processor() or platform.machine(),
        architecture=platform.machine(),
        cores=cores,
        threads=os.cpu_count() or affinity,
        affinity=affinity,
        quota=quota,
        usable=_usable(affinity, quota),
        instructions=tuple(flag for flag in _INSTRUCTIONS if flag in flags),
        caches=caches,
        kernels=kernels,
    )


def _memory(root: Path, unknown: Reasons) -> Memory:
    machine = psutil.virtual_memory()
    limits = told(unknown, "limit_bytes", lambda: cgroup.memory_limits(root)) or []
    least = min((limit for limit, _ in limits), default=machine.total)
    return Memory(
        installed_bytes=machine.total,
        available_bytes=told(unknown, "available_bytes", available_bytes) or machine.available,
        swap_bytes=psutil.swap_memory().total,
        limit_bytes=least if least < machine.total else None,
    )


def _usable(affinity: int, quota: float | None) -> int:
    return affinity if quota is None else max(1, min(affinity, math.ceil(quota)))


def _affinity() -> int:
    """Processors that the scheduler gives this process, where the system tells (Linux), else those there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpuinfo(root: Path) -> tuple[frozenset[str], str]:
    """Instruction set flags and name, as Linux tells them; empty elsewhere."""
    path = root / "proc/cpuinfo"
    if not path.is_file():
        return frozenset(), ""
    facts: dict[str, str] = {}
    for line in path.read_text(errors="replace").splitlines():
        key, _, value = line.partition(":")
        facts.setdefault(key.strip(), value.strip())
    return frozenset((facts.get("flags") or facts.get("Features", "")).split()), facts.get("model name", "")


def _cores(root: Path) -> int | None:
    """Linux names each processor's package and core; elsewhere psutil knows."""
    found = {
        tuple((folder / name).read_text().strip() for name in ("physical_package_id", "core_id"))
        for folder in root.glob("sys/devices/system/cpu/cpu[0-9]*/topology")
    }
    return len(found) or psutil.cpu_count(logical=False)


def _caches(root: Path) -> tuple[Cache, ...]:
    folders = sorted((root / "sys/devices/system/cpu/cpu0/cache").glob("index[0-9]*"))
    return tuple(
        Cache(
            level=int((folder / "level").read_text()),
            kind=(folder / "type").read_text().strip().lower(),
            bytes=_size((folder / "size").read_text().strip()),
            shared_by=_count((folder / "shared_cpu_list").read_text().strip()),
        )
        for folder in folders
    )


def _size(text: str) -> int:
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    return int(text[:-1]) * units[text[-1:]] if text[-1:] in units else int(text)


def _count(listed: str) -> int:
    """Processors in a list of the kernel's: "0-3,8" are five."""
    ends = [part.partition("-") for part in listed.split(",")]
    return sum(int(last or first) - int(first) + 1 for first, _, last in ends)
