"""Facts of machines that are folders: what Linux would say there, and what is said where it does not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import psutil
import pytest

from inference_pio.metrics import cgroup, hardware
from inference_pio.metrics.hardware import Gpu, Machine, read_machine

Tree = Callable[[dict[str, str]], Path]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A root folder with these files in it, by path."""

    def write(files: dict[str, str]) -> Path:
        for name, text in files.items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{text}\n")
        return tmp_path

    return write


CPU = "sys/devices/system/cpu"
MACHINE = {
    "proc/cpuinfo": "processor : 0\nmodel name : Some CPU 9000\nflags : sse2 avx2 fma avx512_vnni\n\nprocessor : 1",
    # Four processors: two cores of two threads each.
    **{f"{CPU}/cpu{index}/topology/core_id": str(index % 2) for index in range(4)},
    **{f"{CPU}/cpu{index}/topology/physical_package_id": "0" for index in range(4)},
    f"{CPU}/cpu0/cache/index0/level": "1",
    f"{CPU}/cpu0/cache/index0/type": "Data",
    f"{CPU}/cpu0/cache/index0/size": "48K",
    f"{CPU}/cpu0/cache/index0/shared_cpu_list": "0,2",
    f"{CPU}/cpu0/cache/index3/level": "3",
    f"{CPU}/cpu0/cache/index3/type": "Unified",
    f"{CPU}/cpu0/cache/index3/size": "36M",
    f"{CPU}/cpu0/cache/index3/shared_cpu_list": "0-3,8",
}


def test_processor_and_caches(tree: Tree) -> None:
    machine = read_machine("avx2", (), tree(MACHINE))
    processor = machine.processor
    assert (processor.name, processor.cores, processor.kernels) == ("Some CPU 9000", 2, "avx2")
    assert processor.instructions == ("avx2", "fma", "avx512_vnni")
    assert [msgspec.structs.astuple(cache) for cache in processor.caches] == [
        (1, "data", 48 * 1024, 2),
        (3, "unified", 36 * 2**20, 5),
    ]
    assert machine.unknown == {}
    assert msgspec.json.decode(msgspec.json.encode(machine), type=Machine) == machine


QUOTAS = {
    "version 2": ({"sys/fs/cgroup/cpu.max": "150000 100000"}, 1.5),
    "version 2, no limit": ({"sys/fs/cgroup/cpu.max": "max 100000"}, None),
    "version 2, the group above is narrower": (
        {
            "proc/self/cgroup": "0::/a/b",
            "sys/fs/cgroup/a/cpu.max": "50000 100000",
            "sys/fs/cgroup/a/b/cpu.max": "400000 100000",
        },
        0.5,
    ),
    "version 1": (
        {
            "proc/self/cgroup": "3:cpu,cpuacct:/docker/x\n1:name=systemd:/",
            "sys/fs/cgroup/cpu/docker/x/cpu.cfs_quota_us": "300000",
            "sys/fs/cgroup/cpu/docker/x/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
        },
        3.0,
    ),
    "a group that a container does not see under its name": (
        {"proc/self/cgroup": "0::/machine/only", "sys/fs/cgroup/cpu.max": "200000 100000"},
        2.0,
    ),
    "a group outside of the tree": (
        {"proc/self/cgroup": "0::/../../other", "sys/fs/cgroup/cpu.max": "200000 100000"},
        2.0,
    ),
    "no control groups": ({}, None),
}


@pytest.mark.parametrize("name", QUOTAS)
def test_quotas(tree: Tree, name: str) -> None:
    files, expected = QUOTAS[name]
    assert cgroup.cpu_quota(tree(files)) == expected


@pytest.mark.parametrize(("quota", "usable"), [(0.5, 1), (1.0, 1), (1.5, 2), (2.0, 2), (64.0, 4), (None, 4)])
def test_a_quota_narrows_what_is_usable(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, quota: float | None, usable: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    stated = "max" if quota is None else str(int(quota * 100_000))
    root = tree(MACHINE | {"sys/fs/cgroup/cpu.max": f"{stated} 100000"})
    assert read_machine("", (), root).processor.usable == hardware.usable_threads(root) == usable


def test_memory_limits_of_every_level(tree: Tree) -> None:
    root = tree(
        {
            "proc/self/cgroup": "4:memory:/jobs/one\n0::/x",
            "sys/fs/cgroup/memory/jobs/one/memory.limit_in_bytes": "9223372036854771712",
            "sys/fs/cgroup/memory/jobs/one/memory.usage_in_bytes": "5",
            "sys/fs/cgroup/memory/jobs/memory.limit_in_bytes": "700000000",
            "sys/fs/cgroup/memory/jobs/memory.usage_in_bytes": "10",
            "sys/fs/cgroup/x/memory.max": "900000000",
            "sys/fs/cgroup/x/memory.current": "20",
        }
    )
    assert sorted(cgroup.memory_limits(root)) == [
        (700_000_000, 10),
        (900_000_000, 20),
        (9223372036854771712, 5),
    ]
    assert read_machine("", (), root).memory.limit_bytes == 700_000_000


def test_a_limit_beyond_the_memory_is_none(tree: Tree) -> None:
    files = {
        "sys/fs/cgroup/memory.max": str(2 * psutil.virtual_memory().total),
        "sys/fs/cgroup/memory.current": "0",
    }
    assert read_machine("", (), tree(files)).memory.limit_bytes is None


def test_what_makes_no_sense_is_unknown_with_the_reason(tree: Tree) -> None:
    root = tree(
        MACHINE
        | {
            "sys/fs/cgroup/cpu.max": "many 100000",
            f"{CPU}/cpu0/cache/index3/size": "big",
            "proc/self/cgroup": "garbage",
        }
    )
    machine = read_machine("", (), root)
    assert machine.processor.quota is None
    assert machine.processor.caches == ()
    assert {"quota", "caches"} <= set(machine.unknown)
    assert all("not understood: " in reason for reason in machine.unknown.values())


def test_what_may_not_be_read_is_unknown_with_the_reason(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree(MACHINE | {"sys/fs/cgroup/cpu.max": "max 100000"})
    read = Path.read_text

    def refuse(path: Path, **options: str) -> str:
        if path.name in ("cpuinfo", "size"):
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, **options)

    monkeypatch.setattr(Path, "read_text", refuse)  # tests may run as root, whom no mode keeps out
    machine = read_machine("", (), root)
    assert machine.processor.instructions == ()
    assert machine.unknown == {
        "instructions": f"{root / 'proc/cpuinfo'}: Permission denied",
        "caches": f"{root / CPU / 'cpu0/cache/index0/size'}: Permission denied",
    }


def test_a_system_that_says_nothing(tmp_path: Path) -> None:
    machine = read_machine("", (), tmp_path)
    assert machine.processor.name
    assert machine.processor.usable >= 1
    assert machine.unknown == {"caches": "the system does not say"}


def test_the_fingerprint_is_the_machines_and_not_the_moments(tree: Tree) -> None:
    root = tree(MACHINE)
    machine = read_machine("avx2", (), root)
    memory = msgspec.structs.replace(machine.memory, available_bytes=1, swap_bytes=7)
    assert msgspec.structs.replace(machine, memory=memory).fingerprint == machine.fingerprint
    others = [
        read_machine("avx512_bf16", (), root),
        read_machine("avx2", (Gpu("some GPU", 8 * 2**30),), root),
        read_machine("avx2", (), tree({"sys/fs/cgroup/cpu.max": "50000 100000"})),
    ]
    assert len({machine.fingerprint, *(other.fingerprint for other in others)}) == 4


def test_specs_for_the_dynamic_configuration(tree: Tree) -> None:
    root = tree({"sys/fs/cgroup/memory.max": "500000000", "sys/fs/cgroup/memory.current": "0"})
    assert read_machine("", (), root).specs["gpu_memory_gb"] == 0
    gpus = (Gpu("small", 8_000_000_000), Gpu("large", 24_000_000_000))
    specs = read_machine("avx2", gpus, root).specs
    assert (specs["gpu_memory_gb"], specs["gpu_count"], specs["memory_gb"]) == (24.0, 2, 0.5)
