"""Meters against counters that the test turns: trees of files like the kernel's, and a library like NVIDIA's."""

from __future__ import annotations

import math
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from inference_pio.metrics import power
from inference_pio.metrics.power import (
    BatteryMeter,
    CpuTimeEstimate,
    EnergyMeter,
    GpuMeter,
    Sum,
    measuring_meter,
)


def package(root: Path, name: str = "intel-rapl:0", microjoules: int = 0) -> Path:
    zone = root / name
    zone.mkdir(parents=True)
    (zone / "energy_uj").write_text(f"{microjoules}\n")
    (zone / "max_energy_range_uj").write_text("9000000\n")
    return zone


def battery(root: Path, **files: str) -> Path:
    supply = root / "BAT0"
    supply.mkdir(parents=True)
    for name, text in {"type": "Battery", "status": "Discharging", **files}.items():
        (supply / name).write_text(f"{text}\n")
    return supply


def test_two_packages_add_up(tmp_path: Path) -> None:
    zones = [package(tmp_path, f"intel-rapl:{number}") for number in range(2)]
    meter = EnergyMeter(tmp_path)
    start = meter.read()
    for zone in zones:
        (zone / "energy_uj").write_text("1500000")
    assert meter.joules(start, meter.read()) == pytest.approx(3.0)


@pytest.mark.parametrize("broken", ["energy_uj", "max_energy_range_uj"])
@pytest.mark.parametrize("content", [None, "", "many"])
def test_a_broken_counter_is_said(tmp_path: Path, broken: str, content: str | None) -> None:
    zone = package(tmp_path)
    (zone / broken).unlink()
    if content is not None:
        (zone / broken).write_text(content)
    meter = EnergyMeter(tmp_path)
    assert not meter.available
    assert "cannot be read" in meter.reason
    assert "\n" not in meter.reason


def test_a_counter_for_root_alone_names_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zone = package(tmp_path)
    (zone / "energy_uj").chmod(0)
    if os.geteuid() == 0:  # whom no mode keeps from reading
        read = Path.read_text

        def refused(path: Path, *arguments: Any, **options: Any) -> str:
            if path.stat().st_mode & 0o444 == 0:
                raise PermissionError(13, "Permission denied", str(path))
            return read(path, *arguments, **options)

        monkeypatch.setattr(Path, "read_text", refused)
    meter = EnergyMeter(tmp_path)
    assert not meter.available
    assert "only be read by root" in meter.reason
    assert "sudo chmod a+r" in meter.reason


@pytest.mark.parametrize(
    ("files", "watts"),
    [
        ({"power_now": "12500000"}, 12.5),
        ({"power_now": "-12500000"}, 12.5),
        ({"current_now": "1000000", "voltage_now": "11400000"}, 11.4),
        ({"power_now": "", "current_now": "-2000000", "voltage_now": "10000000"}, 20.0),
    ],
)
def test_a_battery_says_its_power(tmp_path: Path, files: dict[str, str], watts: float) -> None:
    battery(tmp_path, **files)
    ticks = iter([0.0, 10.0, 14.0])
    meter = BatteryMeter(tmp_path, clock=lambda: next(ticks))  # the first reading is the probe's
    assert meter.available, meter.reason
    assert meter.joules(meter.read(), meter.read()) == pytest.approx(4 * watts)


def test_the_power_between_two_readings_is_their_mean(tmp_path: Path) -> None:
    supply = battery(tmp_path, power_now="10000000")
    meter = BatteryMeter(tmp_path)
    (supply / "power_now").write_text("30000000")
    assert meter.joules((0.0, 10.0), (2.0, meter.read()[1])) == pytest.approx(40.0)
    (supply / "status").write_text("Charging")
    assert math.isnan(meter.joules((0.0, 10.0), meter.read()))


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"type": "Mains"}, "no battery"),
        ({"status": "Charging", "power_now": "1"}, "not discharging"),
        ({}, "says its power"),
        ({"current_now": "1000000"}, "says its power"),
    ],
)
def test_a_battery_that_cannot_tell_is_said(tmp_path: Path, files: dict[str, str], reason: str) -> None:
    battery(tmp_path, **files)
    meter = BatteryMeter(tmp_path)
    assert not meter.available
    assert reason in meter.reason


class _NVMLError(Exception):
    """As pynvml has it."""


def _nvml(counters: dict[int, int], fails: str = "") -> SimpleNamespace:
    def fail_if(name: str) -> None:
        if fails == name:
            raise _NVMLError("Not Supported")

    def handle(index: int) -> int:
        fail_if("handle")
        return index

    def energy(index: int) -> int:
        fail_if("energy")
        return counters[index]

    return SimpleNamespace(
        NVMLError=_NVMLError,
        nvmlInit=lambda: fail_if("init"),
        nvmlDeviceGetCount=lambda: len(counters),
        nvmlDeviceGetHandleByIndex=handle,
        nvmlDeviceGetTotalEnergyConsumption=energy,
    )


def test_gpus_count_millijoules() -> None:
    counters = {0: 1_000, 1: 5_000}
    one, all_of_them = GpuMeter([1], _nvml(counters)), GpuMeter((), _nvml(counters))
    before = [meter.read() for meter in (one, all_of_them)]
    counters[0] += 4_000
    counters[1] += 1_500
    assert one.joules(before[0], one.read()) == pytest.approx(1.5)
    assert all_of_them.joules(before[1], all_of_them.read()) == pytest.approx(5.5)


@pytest.mark.parametrize("fails", ["init", "handle", "energy"])
def test_a_gpu_that_cannot_tell_is_said(fails: str) -> None:
    meter = GpuMeter([0], _nvml({0: 1}, fails))
    assert not meter.available
    assert "Not Supported" in meter.reason


def test_no_gpu_and_no_library_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no GPU" in GpuMeter((), _nvml({})).reason
    monkeypatch.setitem(__import__("sys").modules, "pynvml", None)
    assert "inference-pio[nvml]" in GpuMeter([0]).reason


def test_the_estimate_is_processor_time_times_watts_and_says_what_it_is() -> None:
    seconds = iter([2.0, 5.0])
    meter = CpuTimeEstimate(7.5, lambda: next(seconds))
    assert meter.joules(meter.read(), meter.read()) == pytest.approx(22.5)
    assert meter.covers == "estimate, not measured: 7.5 W per busy core times processor time"


def test_meters_add_up_and_those_that_cannot_tell_give_their_reasons(tmp_path: Path) -> None:
    zone, counters = package(tmp_path), {0: 0}
    both = Sum([EnergyMeter(tmp_path), GpuMeter([0], _nvml(counters))])
    start = both.read()
    (zone / "energy_uj").write_text("2000000")
    counters[0] = 3_000
    assert both.joules(start, both.read()) == pytest.approx(5.0)
    assert both.covers == "processor packages (RAPL), GPUs (NVML)"
    neither = Sum([EnergyMeter(tmp_path / "none"), BatteryMeter(tmp_path / "none")])
    assert not neither.available
    assert neither.reason.count(";") == 1


def test_packages_come_before_the_battery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packages, supplies = tmp_path / "powercap", tmp_path / "supplies"
    battery(supplies, power_now="1000000")
    monkeypatch.setattr(EnergyMeter.__init__, "__defaults__", (packages,))
    monkeypatch.setattr(BatteryMeter.__init__, "__defaults__", (supplies, lambda: 0.0))
    assert measuring_meter().covers == BatteryMeter.covers
    package(packages)
    assert measuring_meter().covers == EnergyMeter.covers
    monkeypatch.setitem(__import__("sys").modules, "pynvml", None)
    assert not measuring_meter([0]).available  # a model on a GPU is not measured by its processor alone
    assert power.measuring_meter([0]).reason.startswith("the package nvidia-ml-py")
