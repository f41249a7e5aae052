"""One tiny model for all tests of the facade; its weights are random and its vocabulary holds any text."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from inference_pio import LLM
from inference_pio.conformance.subject import Subject


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Subject.of("llama", tmp_path_factory.mktemp("llm"), collected={}).checkpoint("grouped")


@pytest.fixture(scope="module")
def llm(checkpoint: Path) -> Iterator[LLM]:
    with LLM(str(checkpoint), dtype="float32", kv_cache_memory_gb=0.02, block_size=16) as model:
        yield model


@pytest.fixture(scope="session")
def idle() -> Callable[[LLM], bool]:
    """Whether a model's engine has given everything up, within five seconds; cancelling takes effect a step later."""

    def is_idle(llm: LLM) -> bool:
        for _ in range(500):
            stats = llm.plugin.get_compute_stats()
            used = llm.plugin.get_memory_stats()["kv_cache_used_bytes"]
            if stats["requests_running"] == stats["requests_waiting"] == used == 0:
                return True
            time.sleep(0.01)
        return False

    return is_idle
