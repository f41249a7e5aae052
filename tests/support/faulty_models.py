"""Models whose workers are `faulty_worker`'s, and requests to them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inference_pio import ResourceLimits, SecurityLevel
from inference_pio.loader.store import ModelStore
from inference_pio.worker.booting import Cell
from inference_pio.worker.messages import Load
from inference_pio.worker.model import WorkerModel
from support.faulty_worker import EXPECTED
from support.pretended_worker import Caller, expected, request

LENGTH = 12
LIMITS = ResourceLimits(memory_gb=0.25, cpu_percent=200, gpu_memory_gb=0)


@dataclass(frozen=True)
class FaultyCell(Cell):
    """`faults` of the first worker, the second, …; those after them have none."""

    faults: list[str] = field(default_factory=list)

    def environment(self) -> dict[str, str]:
        fault = self.faults.pop(0) if self.faults else ""
        return {**super().environment(), "FAULT": fault}


def worker(
    home: Path,
    *faults: str,
    level: SecurityLevel = SecurityLevel.LOW_TRUST,
    model: Path | None = None,
    name: str = "m",
    progress: Callable[[int, int, str], None] | None = None,
) -> WorkerModel:
    """Of a model `model`; its first worker has the first of `faults`, and so on."""
    cell = FaultyCell(level=level, limits=LIMITS, model=model, store=ModelStore(home), faults=list(faults))
    return WorkerModel(name, cell, Load(name, None, {}, {}, None, False, None, None), progress)


async def ready(model: WorkerModel) -> WorkerModel:
    await model.plan()
    await model.load()
    return model


async def until(condition: Callable[[], Any], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        await asyncio.sleep(0.005)


class Streams:
    """So many requests of one model at once."""

    def __init__(self, model: WorkerModel, count: int = EXPECTED) -> None:
        self.callers: list[Caller] = []
        for number in range(count):
            flight, caller = request(number, length=LENGTH)
            model.submit(flight.asked, caller, LENGTH)
            self.callers.append(caller)

    async def exact(self) -> None:
        await until(lambda: all(caller.over for caller in self.callers))
        for number, caller in enumerate(self.callers):
            assert caller.error is None
            assert (caller.answers, caller.ends) == (expected(number, length=LENGTH), 1)
