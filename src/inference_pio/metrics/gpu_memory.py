"""What one process has of the memory of GPUs, by NVIDIA's management library: the driver's own share included."""

from __future__ import annotations

import importlib
from typing import Any

# Of the driver, in each process that uses a device: kernels, queues, the libraries' own.
GPU_CONTEXT_BYTES = 600_000_000


class GpuMemory:
    """
    Args:
        library: stands for the module `pynvml`.

    reason  why nothing is counted; empty where it is
    """

    def __init__(self, library: Any | None = None) -> None:
        self._devices: list[Any] = []
        self.reason = ""
        try:
            self._nvml = library or importlib.import_module("pynvml")
        except ImportError:
            self.reason = "the package nvidia-ml-py is not installed (pip install inference-pio[nvml])"
            return
        try:
            self._nvml.nvmlInit()
            indices = range(self._nvml.nvmlDeviceGetCount())
            self._devices = [self._nvml.nvmlDeviceGetHandleByIndex(index) for index in indices]
            self.bytes_of(0)
        except (self._nvml.NVMLError, OSError) as error:
            self.reason = f"NVML does not tell what processes have: {error}"
        else:
            self.reason = "" if self._devices else "NVML finds no GPU"

    def bytes_of(self, pid: int) -> int:
        """On all devices together; a device that does not tell counts nothing.

        Raises:
            OSError: the library fails.
        """
        try:
            lists = [self._nvml.nvmlDeviceGetComputeRunningProcesses(device) for device in self._devices]
        except self._nvml.NVMLError as error:
            raise OSError(str(error)) from error
        return sum(one.usedGpuMemory or 0 for each in lists for one in each if one.pid == pid)
