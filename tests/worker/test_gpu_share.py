"""A worker's share of a GPU: the plan's budget, the allocator's fraction and the parent's count, against a library like
NVIDIA's and, where there is one, a device.
"""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from inference_pio.metrics.gpu_memory import GPU_CONTEXT_BYTES, GpuMemory
from inference_pio.runtime import prepared
from inference_pio.security import ResourceLimits, SecurityLevel
from inference_pio.security.enforcement import worker_report
from inference_pio.security.proof import Proof
from inference_pio.worker.gpu import GpuWatch, limit_allocator
from inference_pio.worker.watch import Watch


class _NVMLError(Exception):
    """As pynvml has it."""


def library_of(*used: dict[int, int | None], fails: str = "") -> SimpleNamespace:
    """`used` is {pid: bytes} of each device, None where a driver does not tell; `fails` may be changed."""

    def answer(name: str, value: Any) -> Any:
        if made.fails == name:
            raise _NVMLError("Not Supported")
        return value

    def processes(index: int) -> list[SimpleNamespace]:
        running = [SimpleNamespace(pid=pid, usedGpuMemory=count) for pid, count in made.used[index].items()]
        return list(answer("processes", running))

    made = SimpleNamespace(
        used=used,
        fails=fails,
        NVMLError=_NVMLError,
        nvmlInit=lambda: answer("init", None),
        nvmlDeviceGetCount=lambda: len(used),
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetComputeRunningProcesses=processes,
    )
    return made


def test_all_devices_count_and_no_other_process() -> None:
    counter = GpuMemory(library_of({7: 100, 8: 1}, {7: 20, 9: None}))
    assert [counter.bytes_of(pid) for pid in (7, 8, 9, 10)] == [120, 1, 0, 0]
    assert not counter.reason


@pytest.mark.parametrize("fails", ["init", "processes"])
def test_what_cannot_be_counted_is_said(fails: str) -> None:
    assert "Not Supported" in GpuMemory(library_of({}, fails=fails)).reason
    assert GpuMemory(library_of()).reason == "NVML finds no GPU"


def test_more_than_the_limit_ends_it_and_so_does_not_knowing() -> None:
    pid, killed = os.getpid(), list[str]()
    library = library_of({pid: 3_999_999_999})
    watch = Watch(pid, None, 10**6, None, killed.append, [GpuWatch(pid, 4.0, GpuMemory(library)).problem])
    watch.look()
    assert not killed
    for used, fails in ((4_200_000_000, ""), (0, "processes")):
        library.used[0][pid], library.fails = used, fails
        watch._look_due = watch._rarely_due = 0.0
        watch.look()
    watch.close()
    assert killed == [
        "gpu_memory_gb 4 exceeded: it has 4.20 GB",
        "gpu_memory_gb 4: what it has cannot be counted any more: Not Supported",
    ]


@pytest.mark.parametrize(("gigabytes", "share"), [(8.6, 0.5), (0.1, 0.0), (100, 1.0)])
def test_the_allocator_has_what_the_driver_leaves_of_the_limit(gigabytes: float, share: float) -> None:
    said: list[Any] = []
    cuda = SimpleNamespace(
        get_device_properties=lambda _: SimpleNamespace(total_memory=16 * 10**9),
        set_per_process_memory_fraction=lambda *given: said.append(given),
    )
    limit_allocator(torch.device("cpu"), gigabytes, cuda)
    assert not said
    limit_allocator(torch.device("cuda:0"), gigabytes, cuda)
    assert said == [(pytest.approx(share), torch.device("cuda:0"))]


def test_a_plan_has_the_limit_or_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (10**10, 2 * 10**10))
    device = torch.device("cuda:0")
    limited = prepared._budget(device, ResourceLimits(gpu_memory_gb=4))
    assert (limited.bytes, limited.name) == (4 * 10**9 - GPU_CONTEXT_BYTES, "gpu_memory_gb")
    assert prepared._budget(device, ResourceLimits(gpu_memory_gb=0.1)).bytes == 0
    for limits in (None, ResourceLimits(gpu_memory_gb=11)):
        assert prepared._budget(device, limits).bytes == 10**10


def test_the_report_says_what_it_leaves_open() -> None:
    for uncounted, gap in (("", "within 250 ms"), ("NVML finds no GPU", "NVML finds no GPU")):
        report = worker_report(
            SecurityLevel.LOW_TRUST, ResourceLimits(gpu_memory_gb=4), Proof(None), (), uncounted
        )
        entry = next(each for each in report.entries if each.limit == "gpu_memory_gb")
        assert entry.state == "PARTIAL"
        assert gap in entry.gaps[0]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here")
def test_on_a_device() -> None:
    counter = GpuMemory()
    held = torch.zeros(10**8, device="cuda")
    assert counter.reason or counter.bytes_of(os.getpid()) >= held.nbytes
    limit_allocator(torch.device("cuda:0"), 1.0, torch.cuda)
    with pytest.raises(torch.OutOfMemoryError):
        torch.zeros(10**9, dtype=torch.uint8, device="cuda")
    torch.cuda.set_per_process_memory_fraction(1.0)
