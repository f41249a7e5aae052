"""Where a figure comes from: without it no figure can be compared with another."""

from __future__ import annotations

import platform
from datetime import UTC, datetime

import torch

import inference_pio
from inference_pio import ops
from inference_pio.metrics.hardware import cpu_name, usable_threads


def environment() -> dict[str, str | int]:
    """Machine, versions, threads, which kernels run, and the time."""
    kernels = sorted({choice.implementation for choice in ops.table() if choice.device == "cpu"})
    facts: dict[str, str | int] = {
        "cpu": cpu_name(),
        "cores": usable_threads(),
        "threads": torch.get_num_threads(),
        "cpu_kernels": ", ".join(kernels),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "system": platform.platform(terse=True),
        "inference_pio": inference_pio.__version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
    return facts
