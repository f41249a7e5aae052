"""Descriptors that run out at any place, and clocks that jump."""

from __future__ import annotations

import ast
import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import inference_pio
from inference_pio.loader.store import ModelStore
from inference_pio.security import SecurityLevel, landlock
from inference_pio.worker.booting import Cell
from inference_pio.worker.process import Process

_PARENT = """
import asyncio, gc, json, os, resource, sys
from pathlib import Path
from inference_pio.errors import InferencePIOError
from inference_pio.worker import process
from support.faulty_models import Streams, worker
process._CHILD = "support.faulty_worker:main"

def opened():
    gc.collect()
    return len(os.listdir("/proc/self/fd"))

async def served(home):
    model = worker(home, model=home / "model.gguf")
    try:
        await model.plan()
        await model.load()
        await Streams(model).exact()
        return "served"
    except InferencePIOError as error:
        return str(error)
    finally:
        await model.close()

async def main():
    home, told = Path(sys.argv[1]), []
    await served(home)  # whatever is opened once and kept
    before, hard = opened(), resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    for most in range(before - 1, before + 40):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        said = await asyncio.wait_for(served(home), 20)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
        told.append([most - before, said, opened() - before, children])
        if told[-4:] and all(said == "served" for _, said, _, _ in told[-4:]):
            break
    print(json.dumps(told))

asyncio.run(main())
"""


@pytest.mark.skipif(not landlock.version(), reason="this kernel has no Landlock")
def test_descriptors_run_out_at_every_place(tmp_path: Path) -> None:
    """A start that fails says so, and leaves no process and nothing open."""
    (tmp_path / "model.gguf").write_bytes(b"x" * 4096)
    (tmp_path / "config.json").write_text("{}")
    root = Path(__file__).parents[2]
    paths = os.pathsep.join([str(root / "src"), str(root / "tests")])
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", _PARENT, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert len(told) > 8
    for most, said, left, children in told:
        assert said == "served" or "Too many open files" in said, (most, said)
        assert said.isprintable()
        assert (left, children) == (0, ""), (most, said, left, children)
    assert "served" in told[-1]
    assert "ResourceWarning" not in ran.stderr


@pytest.mark.usefixtures("faulty_workers")
def test_a_child_that_cannot_be_watched_does_not_stay(tmp_path: Path) -> None:
    def refuse(_: int) -> None:
        raise OSError("no control group for it")

    async def scene() -> None:
        before = len(os.listdir("/proc/self/fd"))
        child = Process(lambda _: None, lambda _: None)
        cell = Cell(SecurityLevel.LOW_TRUST, None, None, ModelStore(tmp_path))
        with pytest.raises(OSError, match="no control group"):
            await child.start(cell.boot(), {}, refuse)
        assert child.pid
        assert not Path(f"/proc/{child.pid}").exists()
        assert len(os.listdir("/proc/self/fd")) == before

    asyncio.run(scene())


# Who asks what time it is, and what for.
_CALENDAR = {
    "loader/prefix_store.py": "how old a file is, by the file system's clock",
    "packages/store.py": "how old a folder is, by the file system's clock",
    "loader/store.py": "the date on a receipt",
    "worker/scratch.py": "how old a folder is, by the file system's clock",
    "runtime/probe.py": "the date of a measurement",
    "text/sandbox.py": "the date that a chat template asks for",
}


def test_nothing_waits_by_the_calendar() -> None:
    """A clock that is set while requests run changes no deadline, no pause and no back-off."""
    root = Path(inference_pio.__file__).parent
    found = set()
    for file in root.rglob("*.py"):
        where = str(file.relative_to(root))
        if where.startswith(("benchmarks/", "models/")):
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                "time.time",
                "time.time_ns",
                "datetime.now",
                "datetime.utcnow",
                "datetime.today",
                "date.today",
            ):
                found.add(where)
            if isinstance(node, ast.ImportFrom) and node.module == "time":
                assert not {"time", "time_ns"} & {name.name for name in node.names}, where
    assert found == set(_CALENDAR)
