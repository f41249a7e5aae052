"""What a process has left when it has locked itself in, by its own figures and the kernel's."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from inference_pio import ResourceLimits
from inference_pio.children.beginning import import_paths
from inference_pio.loader.store import ModelStore
from inference_pio.security import SecurityLevel, landlock
from inference_pio.security.confine import Confinement
from inference_pio.security.reach import Places, reach_of
from inference_pio.worker.booting import Cell

pytestmark = pytest.mark.skipif(not landlock.version(), reason="this kernel has no Landlock")

_CHILD = """
import ctypes, json, os, resource, sys, threading
sys.path[:0] = {paths!r}
import msgspec
from inference_pio.security.confine import Confinement, confine
from inference_pio.security.identity import has_capabilities
told = json.load(sys.stdin)
if told["threads"]:
    threading.Thread(target=threading.Event().wait, daemon=True).start()
locks = confine(msgspec.convert(told["confinement"], Confinement), told["parent"])
limits = {{name: resource.getrlimit(getattr(resource, name)) for name in ("RLIMIT_CORE", "RLIMIT_FSIZE",
          "RLIMIT_NOFILE", "RLIMIT_DATA")}}
print(json.dumps({{
    "locks": {{lock.name: lock.state for lock in locks}},
    "limits": limits,
    "capabilities": has_capabilities(),
    "dumpable": ctypes.CDLL(None).prctl(3, 0, 0, 0, 0),
    "dies with": ctypes.CDLL(None).prctl(2, ctypes.byref(signal := ctypes.c_int()), 0, 0, 0) or signal.value,
    "processors": sorted(os.sched_getaffinity(0)),
    "user": os.getresuid() + os.getresgid(),
    "groups": os.getgroups(),
    "bounding": ctypes.CDLL(None).prctl(23, 0, 0, 0, 0),
}}))
"""


def locked(wanted: Confinement, *, threads: bool = False, groups: list[int] | None = None) -> dict[str, Any]:
    told = {"confinement": msgspec.to_builtins(wanted), "parent": os.getpid(), "threads": threads}
    ran = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _CHILD.format(paths=import_paths())],
        input=json.dumps(told),
        capture_output=True,
        text=True,
        timeout=60,
        extra_groups=groups,
    )
    if ran.returncode:
        raise RuntimeError(ran.stderr)
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def confinement(**more: Any) -> Confinement:
    reach = reach_of(SecurityLevel.LOW_TRUST, Places(import_paths(), (), None))
    return Confinement(SecurityLevel.LOW_TRUST, reach=reach, **more)


def test_a_locked_process_has_what_it_is_left() -> None:
    found = locked(confinement(data_bytes=300 << 20, open_files=50, processors=(0,)))
    assert found["limits"] == {
        "RLIMIT_CORE": [0, 0],
        "RLIMIT_FSIZE": [0, 0],
        "RLIMIT_NOFILE": [50, 50],
        "RLIMIT_DATA": [300 << 20, 300 << 20],
    }
    assert (found["capabilities"], found["dumpable"], found["dies with"]) == (False, 0, 9)
    assert found["processors"] == [0]
    states = {name: state for name, state in found["locks"].items() if name != "privileges"}
    assert "missing" not in states.values()
    assert states.keys() >= {"limits of resources", "processors", "files", "system calls"}


def test_what_is_not_limited_stays_as_it_was() -> None:
    found = locked(confinement(file_bytes=None, dies_with_parent=False))
    assert found["limits"]["RLIMIT_FSIZE"] == list(resource.getrlimit(resource.RLIMIT_FSIZE))
    assert found["limits"]["RLIMIT_DATA"] == list(resource.getrlimit(resource.RLIMIT_DATA))
    assert found["dies with"] == 0
    assert "dies with its parent" not in found["locks"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody else")
def test_root_becomes_somebody_else() -> None:
    found = locked(confinement(user=(65534, 65533)), groups=[0, 7])
    assert found["user"] == [65534, 65534, 65534, 65533, 65533, 65533]
    assert found["groups"] == []
    assert (found["capabilities"], found["dumpable"], found["bounding"]) == (False, 0, 0)


def test_a_process_with_two_threads_is_not_locked() -> None:
    """Files would not be hidden from the other one."""
    with pytest.raises(RuntimeError, match="2 threads run already"):
        locked(confinement(), threads=True)


@pytest.mark.parametrize(
    ("level", "limits", "expected"),
    [
        (SecurityLevel.LOW_TRUST, None, 0),
        (SecurityLevel.LOW_TRUST, ResourceLimits(), 0),
        (SecurityLevel.MEDIUM_TRUST, ResourceLimits(disk_space_gb=0), 0),
        (SecurityLevel.MEDIUM_TRUST, ResourceLimits(), 10_000_000_000),
        (SecurityLevel.HIGH_TRUST, None, None),
        (SecurityLevel.HIGH_TRUST, ResourceLimits(disk_space_gb=2), 2_000_000_000),
        (SecurityLevel.MAXIMUM_TRUST, ResourceLimits(), 10_000_000_000),
    ],
)
def test_files_are_written_from_medium_trust_on(
    tmp_path: Path, level: SecurityLevel, limits: ResourceLimits | None, expected: int | None
) -> None:
    assert Cell.of(level, limits, None, ModelStore(tmp_path)).confinement().file_bytes == expected


def test_a_model_is_out_of_reach_at_low_trust(tmp_path: Path) -> None:
    model, cache, scratch = (tmp_path / name for name in ("model", "cache", "scratch"))
    places = Places([], [model], cache, scratch, [tmp_path / "granted"])
    reaches = {level: reach_of(level, places) for level in SecurityLevel}
    assert {level for level, reach in reaches.items() if str(model) in reach.read} == set(SecurityLevel) - {
        SecurityLevel.LOW_TRUST
    }
    assert {level for level, reach in reaches.items() if {"/proc", "/sys"} & set(reach.read)} == {
        SecurityLevel.HIGH_TRUST
    }
    for reach in reaches.values():
        assert str(tmp_path / "granted") in reach.read
        assert set(reach.write) <= {"/dev/null", str(scratch)}
