"""Each limit at half of it, at all of it and beyond it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from inference_pio import ResourceLimits, SecurityLevel
from inference_pio.children.beginning import import_paths
from inference_pio.errors import ResourceError
from inference_pio.loader.store import ModelStore
from inference_pio.security import landlock
from inference_pio.security.confine import Confinement
from inference_pio.security.proof import prove
from inference_pio.security.reach import Places, reach_of
from inference_pio.worker.booting import Cell
from inference_pio.worker.watch import Share, Watch

NEEDS_LANDLOCK = pytest.mark.skipif(not landlock.version(), reason="this kernel has no Landlock")
MEMORY = 200_000_000
_SHARES = [pytest.param(0.5, id="half"), pytest.param(1.0, id="all"), pytest.param(1.1, id="more")]

# Locked in, it takes so much memory in pieces of a megabyte, and says how much it had when there was no more.
_TAKES_MEMORY = """
import json, sys
sys.path[:0] = {paths!r}
import msgspec
from inference_pio.security.confine import Confinement, confine
wanted = msgspec.json.decode(sys.argv[1], type=Confinement)
confine(wanted, int(sys.argv[2]))
kept, asked = [], int(sys.argv[3])
try:
    while len(kept) << 20 < asked:
        kept.append(bytearray(1 << 20))
except MemoryError:
    pass
print(len(kept) << 20)
"""


@NEEDS_LANDLOCK
@pytest.mark.parametrize("share", _SHARES)
def test_memory_of_its_own(share: float) -> None:
    reach = reach_of(SecurityLevel.LOW_TRUST, Places(import_paths(), (), None))
    lock = Confinement(SecurityLevel.LOW_TRUST, data_bytes=MEMORY, reach=reach)
    code = _TAKES_MEMORY.format(paths=import_paths())
    arguments = [msgspec.json.encode(lock).decode(), str(os.getpid()), str(int(share * MEMORY))]
    ran = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, *arguments], capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    got = int(ran.stdout)
    if share < 1:
        assert got >= share * MEMORY
    else:  # what the interpreter has counts as well
        assert 0.8 * MEMORY < got < MEMORY


_HOLDS_MEMORY = """
import mmap, sys
kept = mmap.mmap(-1, int(sys.argv[1])) if sys.argv[2] == "shared" else bytearray(int(sys.argv[1]))
kept[::4096] = b"x" * len(kept[::4096])
print("has it", flush=True)
sys.stdin.read()
"""


@contextmanager
def holding(size: int, kind: str) -> Iterator[int]:
    """A process with so much memory, nothing of which is limited."""
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _HOLDS_MEMORY, str(size), kind],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "has it\n"
        yield child.pid
    finally:
        child.kill()
        child.communicate()


@pytest.mark.parametrize("kind", ["own", "shared"])
@pytest.mark.parametrize("share", _SHARES)
def test_memory_as_the_parent_sees_it(kind: str, share: float) -> None:
    with holding(int(share * MEMORY), kind) as pid:
        verdicts: list[str] = []
        watch = Watch(pid, MEMORY, 100, None, verdicts.append)
        watch.look()
        held = watch.own_bytes()
        assert share * MEMORY <= held <= share * MEMORY + 20e6
        assert watch.peak_bytes == held
        watch.close()
    if share < 1:
        assert not verdicts
    else:
        assert verdicts == [f"memory_gb 0.2 exceeded: it has {held / 1e9:.2f} GB"]


_HAS_THREADS = """
import sys, threading
stop = threading.Event()
for _ in range(int(sys.argv[1])):
    threading.Thread(target=stop.wait).start()
print("has them", flush=True)
sys.stdin.read()
stop.set()
"""


def test_threads_are_counted() -> None:
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _HAS_THREADS, "19"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    child.stdout.readline()
    for most, expected in ((20, []), (19, ["20 threads: 19 are allowed"])):
        verdicts: list[str] = []
        watch = Watch(child.pid, None, most, None, verdicts.append)
        watch.look()
        watch.close()
        assert verdicts == expected
    child.communicate(b"")


@pytest.mark.parametrize("percent", [30.0, 100.0, 150.0])
@pytest.mark.parametrize("share", _SHARES)
def test_processor_time_by_the_clock(percent: float, share: float) -> None:
    """A process that wants so much of its share, looked at every 10 ms for a minute."""
    bucket, used, pauses = Share(percent), 0.0, 0
    bucket.start(0.0, used)
    for look in range(1, 6001):
        if not bucket.paused:
            used += share * percent / 100 * 0.01
        pauses += bucket.due(look * 0.01, used) is True
    got = used / 60
    if share <= 1:
        assert pauses == 0
        assert got == pytest.approx(share * percent / 100)
    else:
        assert pauses > 10
        assert got == pytest.approx(percent / 100, rel=0.02)


def test_time_that_was_not_used_is_not_saved_up() -> None:
    """After an hour of rest it gets no more than its share, and a moment."""
    bucket, used = Share(50.0), 0.0
    bucket.start(0.0, used)
    bucket.due(3600.0, used)
    for look in range(1, 201):
        if not bucket.paused:
            used += 0.01
        bucket.due(3600.0 + look * 0.01, used)
    assert 1.0 <= used <= 1.1


@NEEDS_LANDLOCK
def test_processor_time_of_a_process_that_wants_more(tmp_path: Path) -> None:
    """Two threads within half a processor, as the canary finds it; a limit beyond what there is needs no pauses."""
    cell = Cell(
        SecurityLevel.LOW_TRUST, ResourceLimits(cpu_percent=50, gpu_memory_gb=0), None, ModelStore(tmp_path)
    )

    @contextmanager
    def held(pid: int) -> Iterator[object]:
        holding = cell.hold(pid, lambda _: None)
        try:
            yield holding.watch.look
        finally:
            holding.close()

    proof = prove(cell.confinement(), import_paths(), held, 2)  # type: ignore[arg-type]
    assert proof.cores is not None
    assert proof.cores <= 0.5 * 1.15


@pytest.mark.parametrize("share", _SHARES)
def test_space_on_the_disk(tmp_path: Path, share: float) -> None:
    store = ModelStore(tmp_path, limit_bytes=10_000_000)
    needed = int(share * 10_000_000)
    if share <= 1:
        store.require_room("m", needed)
    else:
        with pytest.raises(ResourceError, match=r"0.0 MB used \+ 11.0 MB needed > 10.0 MB allowed"):
            store.require_room("m", needed)


def test_no_graphics_without_memory_for_it(tmp_path: Path) -> None:
    shown = {}
    for gigabytes in (0.0, 1.0):
        limits = ResourceLimits(gpu_memory_gb=gigabytes)
        cell = Cell(SecurityLevel.LOW_TRUST, limits, None, ModelStore(tmp_path))
        devices = [path for path in cell.confinement().reach.write if "nvidia" in path]
        shown[gigabytes] = (bool(devices), cell.environment().get("CUDA_VISIBLE_DEVICES"))
    assert shown == {0.0: (False, ""), 1.0: (True, None)}


def test_pauses_let_it_go_on() -> None:
    """It is stopped where it has used up its share, and continued where it has some again."""
    child = subprocess.Popen([sys.executable, "-I", "-S", "-c", "while True: pass"])
    try:
        watch = Watch(child.pid, None, 100, Share(4.0), lambda _: None)
        began, before, states = time.monotonic(), watch.seconds(), set()
        while time.monotonic() < began + 2.0 or (states < {"T", "R"} and time.monotonic() < began + 20):
            watch.look()
            states.add(Path(f"/proc/{child.pid}/stat").read_text().rpartition(") ")[2][0])
            time.sleep(0.005)
        used, seconds = watch.seconds() - before, time.monotonic() - began
        watch.close()
        assert states >= {"T", "R"}
        assert used <= 0.04 * seconds + 0.15  # what was saved up, and one look that came late
    finally:
        child.kill()
        child.wait()
