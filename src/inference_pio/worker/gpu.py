"""A worker's share of a GPU's memory: what its allocator may take, and what its parent counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inference_pio.metrics.gpu_memory import GPU_CONTEXT_BYTES, GpuMemory

if TYPE_CHECKING:
    import torch


def limit_allocator(device: torch.device, gigabytes: float, cuda: Any) -> None:
    """In the worker: torch's allocator gives no more than the limit leaves beside the driver's own memory.

    Args:
        cuda: `torch.cuda`.
    """
    if device.type == "cuda":
        total = cuda.get_device_properties(device).total_memory
        most = max(0.0, gigabytes * 1e9 - GPU_CONTEXT_BYTES)
        cuda.set_per_process_memory_fraction(min(1.0, most / total), device)


@dataclass(frozen=True)
class GpuWatch:
    """In the parent: everything counts, the driver's own memory and other allocators' too."""

    pid: int
    gigabytes: float
    counter: GpuMemory

    def problem(self) -> str | None:
        """Why it has to end; None: nothing."""
        try:
            used = self.counter.bytes_of(self.pid)
        except OSError as error:
            return f"gpu_memory_gb {self.gigabytes:g}: what it has cannot be counted any more: {error}"
        if used <= self.gigabytes * 1e9:
            return None
        return f"gpu_memory_gb {self.gigabytes:g} exceeded: it has {used / 1e9:.2f} GB"
