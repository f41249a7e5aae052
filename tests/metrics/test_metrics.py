"""Probes against what the operating system says elsewhere."""

from __future__ import annotations

import mmap
from pathlib import Path

import psutil
import pytest

from inference_pio import PerformanceMetrics
from inference_pio.metrics import memory
from inference_pio.metrics.power import EnergyMeter


def test_performance_metrics_has_the_standards_fields() -> None:
    assert vars(PerformanceMetrics()) == {
        "latency_ms": 0.0,
        "throughput_tokens_per_sec": 0.0,
        "memory_usage_gb": 0.0,
        "power_consumption_watts": 0.0,
        "accuracy_score": 0.0,
        "resource_utilization": {},
    }


def test_memory_of_this_process_grows_with_what_it_takes() -> None:
    before = memory.process_bytes()
    with mmap.mmap(-1, 64_000_000) as block:  # of the system itself: an allocator may have some in store
        for page in range(0, len(block), 4096):
            block[page] = 1
        assert 50_000_000 < memory.process_bytes() - before < 90_000_000
    assert memory.peak_process_bytes() >= memory.process_bytes() - 5_000_000
    assert 0 < memory.available_bytes() <= psutil.virtual_memory().total


def test_cgroup_limit_is_what_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("1000000\n")
    (group / "memory.current").write_text("400000\n")
    monkeypatch.setattr(memory, "_ROOT", tmp_path)
    assert memory.available_bytes() == 600_000
    (group / "memory.max").write_text("max\n")
    assert memory.available_bytes() > 600_000


def test_energy_counters(tmp_path: Path) -> None:
    zone = tmp_path / "intel-rapl:0"
    zone.mkdir()
    (tmp_path / "intel-rapl:0:0").mkdir()  # a part of the package, counted in it
    (zone / "max_energy_range_uj").write_text("1000000")
    (zone / "energy_uj").write_text("900000")
    meter = EnergyMeter(tmp_path)
    assert meter.available
    start = meter.read()
    (zone / "energy_uj").write_text("400000")  # wrapped around once
    assert meter.joules(start, meter.read()) == pytest.approx(0.5)


def test_no_counters_is_said(tmp_path: Path) -> None:
    meter = EnergyMeter(tmp_path)
    assert not meter.available
    assert "no energy counters" in meter.reason
