"""Where a figure comes from: without it no figure can be compared with another."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from pathlib import Path

import torch

import inference_pio
from inference_pio import ops


def environment() -> dict[str, str | int]:
    """Machine, versions, threads, which kernels run, and the time."""
    kernels = sorted({choice.implementation for choice in ops.table() if choice.device == "cpu"})
    facts: dict[str, str | int] = {
        "cpu": _cpu_name(),
        "cores": _usable_cores(),
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


def _usable_cores() -> int:
    # The affinity of this process where the system tells it (Linux), else what the machine has.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
