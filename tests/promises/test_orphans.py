"""A parent that is killed leaves no process behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from inference_pio.security import landlock

pytestmark = pytest.mark.skipif(not landlock.version(), reason="this kernel has no Landlock")

_PARENT = """
import asyncio, json, os, signal, sys
from pathlib import Path
sys.path[:0] = {paths!r}
from inference_pio import SecurityLevel
from inference_pio.helper.process import HELPER
from inference_pio.loader.store import ModelStore
from inference_pio.worker import process
from inference_pio.worker.booting import Cell
from inference_pio.worker.messages import Load
from inference_pio.worker.model import WorkerModel
from support.pretended_worker import request
process._CHILD = "support.faulty_worker:main"

async def main(when):
    cell = Cell(SecurityLevel.LOW_TRUST, None, None, ModelStore(Path(sys.argv[2])))
    model = WorkerModel("m", cell, Load("m", None, {{}}, {{}}, None, False, None, None))
    planned = asyncio.create_task(model.plan())
    while model.pid is None:
        await asyncio.sleep(0)
    if when != "starting":
        await planned
        await model.load()
    if when in ("at work", "paused"):
        flight, caller = request(1, length=10**6)
        model.submit(flight.asked, caller, 10**6)
        while not caller.answers[0]:
            await asyncio.sleep(0.01)
    if when == "paused":
        os.kill(model.pid, signal.SIGSTOP)
    HELPER.start()
    print(json.dumps([model.pid, HELPER._child.pid]), flush=True)
    while True:
        await asyncio.sleep(1)

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.parametrize("when", ["starting", "idle", "at work", "paused"])
def test_nothing_outlives_a_parent_that_is_killed(tmp_path: Path, when: str) -> None:
    root = Path(__file__).parents[2]
    code = _PARENT.format(paths=[str(root / "src"), str(root / "tests")])
    parent = subprocess.Popen(
        [sys.executable, "-c", code, when, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    children = json.loads(parent.stdout.readline())
    assert all(map(_is_there, children))
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    end = time.monotonic() + 3.0  # a second, and what a busy machine adds
    while (left := [pid for pid in children if _is_there(pid)]) and time.monotonic() < end:
        time.sleep(0.01)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left


def _is_there(pid: int) -> bool:
    """Not ended; whoever adopts orphans may not have looked at this one yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_child_whose_parent_went_before_it_looked_ends(tmp_path: Path) -> None:
    """The signal would never come: it asks who its parent is."""
    code = (
        "import sys; sys.path[:0] = sys.argv[2:]; from inference_pio.security.confine import _die_with; "
        "_die_with(int(sys.argv[1])); print('goes on')"
    )
    for parent, said in ((os.getpid(), "goes on\n"), (1, "")):
        ran = subprocess.run(
            [sys.executable, "-c", code, str(parent), *sys.path], capture_output=True, text=True, cwd=tmp_path
        )
        assert (ran.stdout, ran.returncode) == (said, 0 if said else 1), ran.stderr
