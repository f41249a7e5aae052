"""What is logged: short lines without control characters, and nothing of what people ask or keep secret."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from inference_pio import LLM, ResourceLimits, SamplingParams, SecurityLevel
from inference_pio.children.crossing import error_of
from inference_pio.conformance.subject import Subject
from inference_pio.errors import InferencePIOError, ResourceError
from inference_pio.security import landlock
from inference_pio.worker.death import Death
from inference_pio.worker.start import _told
from support.faulty_models import Streams, ready, worker
from support.faulty_worker import NOISE

NEEDS_LANDLOCK = pytest.mark.skipif(not landlock.version(), reason="this kernel has no Landlock")
CANARY = "xkcdcanary"


def is_one_line(text: str, most: int) -> bool:
    return text.isprintable() and len(text) <= most


@NEEDS_LANDLOCK
@pytest.mark.slow
def test_nothing_that_people_ask_is_logged(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A word in every field of requests that are answered, refused, and cut off by the end of their worker."""
    pytest.importorskip("inference_pio.models.llama")
    monkeypatch.setenv("API_KEY", CANARY)
    checkpoint = Subject.of("llama", tmp_path / "m", collected={}).checkpoint("grouped")
    (checkpoint / "generation_config.json").write_text(f'{{"_note": "{CANARY}"}}')
    params: dict[str, Any] = {"stop": [CANARY], "max_tokens": 300, "ignore_eos": True, "seed": 1}
    limits = ResourceLimits(memory_gb=2.0, gpu_memory_gb=0)
    with (
        caplog.at_level(logging.INFO),
        LLM(
            str(checkpoint),
            dtype="float32",
            kv_cache_memory_gb=0.02,
            security_level=SecurityLevel.LOW_TRUST,
            resource_limits=limits,
        ) as llm,
    ):
        llm.generate(CANARY, SamplingParams(**{**params, "max_tokens": 3}))
        for wrong in ({"logit_bias": {10**6: 1.0}}, {"stop_token_ids": [10**6]}):
            with pytest.raises(InferencePIOError):
                llm.generate(CANARY, SamplingParams(**{**params, **wrong}))
        llm.chat([{"role": CANARY, "content": CANARY}], SamplingParams(**{**params, "max_tokens": 3}))
        stream = llm.stream(CANARY, SamplingParams(**params))
        next(stream)
        model: Any = llm._runtime
        os.kill(model.model.pid, signal.SIGABRT)
        list(stream)
        while model.model.restarts < 1:
            time.sleep(0.01)
    told, printed = [record.getMessage() for record in caplog.records], capfd.readouterr()
    assert any("SIGABRT" in line for line in told)
    assert not [line for line in [*told, printed.out, printed.err] if CANARY in line]
    assert all(is_one_line(line, 1000) for line in told)


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
