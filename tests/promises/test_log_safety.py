"""What is logged, and shown to people: short lines without control characters, whatever a worker says."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from inference_pio.children.crossing import error_of
from inference_pio.errors import ResourceError
from inference_pio.security import landlock
from inference_pio.worker.death import Death
from inference_pio.worker.start import _told
from support.faulty_models import Streams, ready, worker
from support.faulty_worker import NOISE

NEEDS_LANDLOCK = pytest.mark.skipif(not landlock.version(), reason="this kernel has no Landlock")


def is_one_line(text: str, most: int) -> bool:
    return text.isprintable() and len(text) <= most


@NEEDS_LANDLOCK
@pytest.mark.usefixtures("faulty_workers")
def test_words_of_a_worker_are_one_line_each(tmp_path: Path) -> None:
    shown: list[str] = []

    async def scene() -> None:
        bad = worker(tmp_path, "words@load", progress=lambda *told: shown.append(told[2]))
        with pytest.raises(ResourceError) as caught:
            await ready(bad)
        shown.append(str(caught.value))
        await bad.close()

    asyncio.run(scene())
    assert is_one_line(shown[0], 80)
    assert "noise" in shown[0]
    assert is_one_line(shown[1], 2000)
    assert "noise" in shown[1]


@NEEDS_LANDLOCK
@pytest.mark.usefixtures("faulty_workers")
def test_a_name_of_two_lines_is_logged_as_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        bad = await ready(worker(tmp_path, "segv@decode", name="a\nERROR forged\x1b[31m"))
        try:
            await Streams(bad).exact()
        finally:
            await bad.close()

    asyncio.run(scene())
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(r"a\nERROR forged\x1b[31m: its worker ended: ended by SIGSEGV")


@NEEDS_LANDLOCK
@pytest.mark.usefixtures("faulty_workers")
def test_what_it_prints_is_kept_in_part(tmp_path: Path) -> None:
    """Megabytes of noise, of which the last quarter of one stays."""
    kept = []

    async def scene() -> None:
        bad = await ready(worker(tmp_path, "noise@decode"))
        try:
            await Streams(bad).exact()
            child: Any = bad._process
            kept.append(sum(map(len, child._log)))
        finally:
            await bad.close()

    asyncio.run(scene())
    assert 100_000 < kept[0] <= 256 << 10


def test_last_words_are_few() -> None:
    cause = Death(1, last=[NOISE * 100] * 1000).cause
    assert is_one_line(cause, 700)
    assert cause.count("|") == 2


def test_warnings_of_a_worker_are_few_lines() -> None:
    told = _told([NOISE * 1000] * 1000)
    assert len(told) == 32
    assert all(is_one_line(line, 1000) and "noise" in line for line in told)


def test_errors_of_a_child_are_one_line() -> None:
    error = error_of("ConfigError", NOISE * 1000)
    assert is_one_line(str(error), 2000)
    assert "noise" in str(error)
