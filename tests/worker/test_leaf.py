"""Control groups as folders: where one may be made, and what is written into it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from inference_pio.metrics.cgroup import own_folder
from inference_pio.worker.leaf import make_leaf


def tree(root: Path, controllers: dict[str, str]) -> None:
    """A system whose groups are plain files; controller -> this process's group."""
    (root / "proc/self").mkdir(parents=True)
    lines = [f"{number}:{name}:/{group}" for number, (name, group) in enumerate(controllers.items())]
    (root / "proc/self/cgroup").write_text("\n".join(lines))
    for name, group in controllers.items():
        folder = root / "sys/fs/cgroup" / name / group
        folder.mkdir(parents=True)
        (folder / "cgroup.procs").write_text(f"{os.getpid()}\n")


def test_version_2_where_this_process_is_alone_in_a_delegated_group(tmp_path: Path) -> None:
    tree(tmp_path, {"": "user/app.scope"})
    own = tmp_path / "sys/fs/cgroup/user/app.scope"
    (own / "cgroup.controllers").write_text("cpu memory pids")
    (own / "cgroup.subtree_control").write_text("")
    leaf = make_leaf("w", tmp_path)
    assert leaf is not None
    assert (leaf.version, leaf.holds) == (2, ("memory", "cpu"))
    assert (own / "cgroup.subtree_control").read_text() == "+memory +cpu\n"
    assert (own / "inference-pio-engine/cgroup.procs").read_text() == f"{os.getpid()}\n"
    leaf.limit_memory(10**9)
    leaf.limit_processors(150)
    leaf.take_in(77)
    written = {file.name: file.read_text().strip() for file in (own / "w").iterdir()}
    assert written == {
        "memory.max": "1000000000",
        "memory.swap.max": "0",
        "memory.oom.group": "1",
        "cpu.max": "150000 100000",
        "cgroup.procs": "77",
    }


@pytest.mark.parametrize(
    ("offered", "inside"), [("cpu pids", str(os.getpid())), ("cpu memory", f"{os.getpid()}\n1")]
)
def test_version_2_that_is_not_ours_to_divide(tmp_path: Path, offered: str, inside: str) -> None:
    tree(tmp_path, {"": "user"})
    own = tmp_path / "sys/fs/cgroup/user"
    (own / "cgroup.controllers").write_text(offered)
    (own / "cgroup.subtree_control").write_text("")
    (own / "cgroup.procs").write_text(inside)
    assert make_leaf("w", tmp_path) is None
    assert (own / "cgroup.subtree_control").read_text() == ""


def test_version_1(tmp_path: Path) -> None:
    tree(tmp_path, {"memory": "m", "cpu": ""})
    leaf = make_leaf("w", tmp_path)
    assert leaf is not None
    assert (leaf.version, leaf.holds) == (1, ("memory", "cpu"))
    leaf.limit_memory(5000)
    leaf.limit_processors(30)
    leaf.take_in(9)
    memory, cpu = tmp_path / "sys/fs/cgroup/memory/m/w", tmp_path / "sys/fs/cgroup/cpu/w"
    assert (memory / "memory.limit_in_bytes").read_text() == "5000\n"
    assert (cpu / "cpu.cfs_quota_us").read_text() == "30000\n"
    assert {(folder / "cgroup.procs").read_text() for folder in (memory, cpu)} == {"9\n"}
    (memory / "memory.oom_control").write_text("under_oom 0\noom_kill 1\n")
    assert leaf.ran_out()


def test_none_where_nothing_may_be_written(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/")
    assert make_leaf("w", tmp_path) is None


_EATER = """
import os, sys
sys.stdin.readline()
held = os.memfd_create("x")
for _ in range(400):
    os.write(held, b"x" * (1 << 20))
print("not stopped")
"""


def test_a_real_one_counts_what_no_other_limit_sees() -> None:
    """Memory that is a file without a name, written and never mapped."""
    leaf = make_leaf(f"inference-pio-test-{os.getpid()}")
    if leaf is None or "memory" not in leaf.holds:
        pytest.skip("this process may make no control group for memory")
    try:
        leaf.limit_memory(200 << 20)
        child = subprocess.Popen(
            [sys.executable, "-c", _EATER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        leaf.take_in(child.pid)
        said, _ = child.communicate("go\n", timeout=60)
        assert child.returncode == -9
        assert said == ""
        assert leaf.ran_out()
    finally:
        leaf.remove()
    assert not any(folder.exists() for folder in leaf.folders.values())
    assert own_folder(Path("/"), "memory").exists()
