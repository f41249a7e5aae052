"""How a worker that runs is to be run within less memory."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from inference_pio.errors import UsageError
from inference_pio.worker.booting import Cell
from inference_pio.worker.messages import Load


def within(started: tuple[Cell, Load], memory_gb: float) -> tuple[Cell, Load]:
    """The same model, made to fit.

    Raises:
        UsageError: it has no limits, or lower ones.
    """
    cell, load = started
    if cell.limits is None:
        raise UsageError(
            "memory_gb: this model has no limits; give it resource_limits when it is initialised"
        )
    limits = replace(cell.limits, memory_gb=memory_gb)  # refuses what is no number
    if memory_gb > cell.limits.memory_gb:
        raise UsageError(
            f"memory_gb {memory_gb:g} is more than the limit, {cell.limits.memory_gb:g}: a model that runs can be "
            "given less"
        )
    options = {**load.options, "fit": True}
    return replace(cell, limits=limits), msgspec.structs.replace(load, options=options, memory_gb=memory_gb)
