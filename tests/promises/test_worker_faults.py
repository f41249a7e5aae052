"""A worker goes wrong in every way, at every time: it is named, other models go on, and every stream is exact.

Processes, signals, limits and sockets are real; the engine is a table of tokens, so that a worker starts in a moment.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from inference_pio import SecurityLevel
from inference_pio.children.frames import MOST_BYTES
from inference_pio.errors import ModelFileError, PluginError
from inference_pio.security import landlock
from inference_pio.worker.roles import State
from support.faulty_models import Streams, ready, until, worker

pytestmark = [
    pytest.mark.skipif(not landlock.version(), reason="this kernel has no Landlock"),
    pytest.mark.usefixtures("faulty_workers"),
]

# fault -> what is said of it where it is one, as a pattern.
CAUSES = {
    "segv": "ended by SIGSEGV: it touched memory that is not its own",
    "abrt": "ended by SIGABRT: it gave up by itself",
    "kill": "ended by SIGKILL from outside",
    "own memory": "MemoryError|memory_gb 0.25 exceeded",
    "exit 0": "it exited with 0",
    "loop": "no step in ",
    "garbage": "it broke the protocol: not a message",
    "over": f"it broke the protocol: a frame of {MOST_BYTES + 1:,} bytes: it takes {MOST_BYTES:,}",
    "claim": f"it broke the protocol: a frame of 1,073,741,824 bytes: it takes {MOST_BYTES:,}",
    "hang up": "it hung up, and stayed",
    "noise": "",
}


@pytest.mark.usefixtures("little_patience")
@pytest.mark.parametrize("fault", CAUSES)
@pytest.mark.parametrize(
    "phase",
    [
        pytest.param("idle", marks=pytest.mark.slow),
        pytest.param("load", marks=pytest.mark.slow),
        pytest.param("prefill", marks=pytest.mark.slow),
        "decode",
    ],
)
def test_it_is_named_and_nobody_notices(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, fault: str, phase: str
) -> None:
    async def scene() -> None:
        bad, other = worker(tmp_path, f"{fault}@{phase}"), worker(tmp_path)
        try:
            await asyncio.gather(ready(bad), ready(other))
            if phase == "idle" and fault not in ("loop", "noise"):  # a loop is noticed where there is work
                await until(lambda: bad.restarts)
            if phase == "idle":
                await asyncio.sleep(0.2)
            beside, streams = Streams(other), Streams(bad)
            await beside.exact()
            await streams.exact()
            assert (bad.restarts, other.restarts) == (int(fault != "noise"), 0)
            assert bad.state is State.READY
        finally:
            await asyncio.gather(bad.close(), other.close())

    asyncio.run(scene())
    cause = "no word in " if (fault, phase) == ("loop", "load") else CAUSES[fault]
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == int(fault != "noise")
    assert all(re.search(cause, line) and line.isprintable() and len(line) < 1000 for line in told)


@pytest.mark.slow
@pytest.mark.usefixtures("little_patience")
@pytest.mark.parametrize("fault", CAUSES)
def test_a_close_ends_it_whatever_it_does(tmp_path: Path, fault: str) -> None:
    async def scene() -> None:
        bad, other = await asyncio.gather(ready(worker(tmp_path, f"{fault}@close")), ready(worker(tmp_path)))
        pid, began = bad.pid, time.monotonic()
        beside = Streams(other)
        await bad.close()
        assert time.monotonic() - began < 10
        assert not os.path.exists(f"/proc/{pid}")
        await beside.exact()
        assert other.restarts == 0
        await other.close()

    asyncio.run(scene())


def test_memory_that_no_limit_of_its_own_counts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        bad = await ready(worker(tmp_path, "shared memory@decode", level=SecurityLevel.HIGH_TRUST))
        try:
            await Streams(bad).exact()
        finally:
            await bad.close()

    asyncio.run(scene())
    assert "memory_gb 0.25 exceeded" in caplog.records[0].getMessage()


def _empty(file: Path) -> None:
    os.truncate(file, 0)


def _replace(file: Path) -> None:
    (file.parent / "new").write_bytes(bytes(1 << 16))
    (file.parent / "new").rename(file)


def _point_elsewhere(file: Path) -> None:
    (file.parent / "other").write_bytes(bytes(1 << 16))
    file.unlink()
    file.symlink_to(file.parent / "other")


@pytest.mark.parametrize("change", [_empty, _replace, _point_elsewhere, Path.unlink])
def test_no_answer_goes_on_with_another_model(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, change: Callable[[Path], None]
) -> None:
    """A worker that maps a file which shrinks ends; where the file is another one, none follows it."""
    (tmp_path / "real").write_bytes(bytes(1 << 16))
    file = tmp_path / "model.gguf"
    file.symlink_to(tmp_path / "real")
    fault = "gone file" if change is _empty else "segv"

    async def scene() -> None:
        bad = await ready(worker(tmp_path, f"{fault}@decode", model=file))
        try:
            change(file)
            streams = Streams(bad)
            await until(lambda: all(caller.over for caller in streams.callers))
            for caller in streams.callers:
                assert re.search(r"model\.gguf: this model file changed on the disk", str(caller.error))
            with pytest.raises(ModelFileError, match="load the model again"):
                Streams(bad)
            assert bad.state is State.BROKEN
        finally:
            await bad.close()

    asyncio.run(scene())
    cause = "a model file changed on the disk" if change is _empty else "SIGSEGV"
    assert cause in caplog.records[0].getMessage()


def test_what_it_prints_is_shown_in_one_short_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        bad = await ready(worker(tmp_path, "noise, exit 3@decode"))
        try:
            await Streams(bad).exact()
        finally:
            await bad.close()

    asyncio.run(scene())
    (line,) = [record.getMessage() for record in caplog.records]
    assert "it exited with 3; it said: " in line
    assert line.isprintable()
    assert len(line) < 1000


def test_a_worker_that_answers_something_else_is_ended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It says "words" to whatever it is asked."""

    async def scene() -> None:
        model = await ready(worker(tmp_path))
        try:
            assert await model.ask("detokenize", token_ids=[1], skip_special_tokens=True) == "words"
            assert model.restarts == 0
            with pytest.raises(
                PluginError, match="its worker ended: it broke the protocol: no answer to 'memory'"
            ):
                await model.ask("memory")
            assert model.restarts == 2
        finally:
            await model.close()

    asyncio.run(scene())
    assert all(
        "it broke the protocol: no answer to 'memory'" in record.getMessage() for record in caplog.records
    )
