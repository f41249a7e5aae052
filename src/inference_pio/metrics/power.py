"""Energy as the machine counts it: packages (RAPL), GPUs (NVML), the battery; and an estimate that says so."""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

_POWERCAP = Path("/sys/class/powercap")
_SUPPLIES = Path("/sys/class/power_supply")


class Meter(Protocol):
    """Joules between two readings.

    covers     what is counted, in words
    available  False where nothing can be read; `reason` then says why, in words that follow a colon
    """

    covers: str
    available: bool
    reason: str

    def read(self) -> Any: ...

    def joules(self, start: Any, end: Any) -> float:
        """Energy used between two readings; NaN where they tell nothing."""


class EnergyMeter:
    """RAPL through Linux's powercap: counters of whole packages, everything else that runs on them included."""

    covers = "processor packages (RAPL)"

    def __init__(self, root: Path = _POWERCAP) -> None:
        # A zone of two numbers is a part of a package, counted in it.
        self._zones = [zone for zone in sorted(root.glob("intel-rapl:*")) if zone.name.count(":") == 1]
        self.reason = self._refusal(root)
        self.available = not self.reason

    def _refusal(self, root: Path) -> str:
        if not self._zones:
            return f"no energy counters under {root}"
        try:
            self.joules(self.read(), self.read())
        except PermissionError:
            allow = f"sudo chmod a+r {root}/intel-rapl:*/energy_uj"
            return f"the energy counters may only be read by root; to allow it: {allow}"
        except (OSError, ValueError) as error:
            return f"the energy counters under {root} cannot be read: {error}"
        return ""

    def read(self) -> list[int]:
        """Microjoules of each package since some moment; they wrap around."""
        return [int((zone / "energy_uj").read_text()) for zone in self._zones]

    def joules(self, start: list[int], end: list[int]) -> float:
        """Energy used between two readings, wrap-around included."""
        total = 0
        for zone, before, after in zip(self._zones, start, end, strict=True):
            span = int((zone / "max_energy_range_uj").read_text())
            total += after - before if after >= before else after + span - before
        return total / 1e6


class GpuMeter:
    """NVML's counters of whole GPUs (Volta and newer), through the package nvidia-ml-py.

    Args:
        indices: GPUs as NVML counts them; all where empty.
        library: stands for the module `pynvml`.
    """

    covers = "GPUs (NVML)"

    def __init__(self, indices: Sequence[int] = (), library: ModuleType | Any | None = None) -> None:
        self._handles: list[Any] = []
        self.reason = ""
        try:
            self._nvml = library or importlib.import_module("pynvml")
        except ImportError:
            self.reason = "the package nvidia-ml-py is not installed (pip install inference-pio[nvml])"
        else:
            self._open(indices)
        self.available = not self.reason

    def _open(self, indices: Sequence[int]) -> None:
        try:
            self._nvml.nvmlInit()
            chosen = indices or range(self._nvml.nvmlDeviceGetCount())
            self._handles = [self._nvml.nvmlDeviceGetHandleByIndex(index) for index in chosen]
            self.read()
        except self._nvml.NVMLError as error:
            self.reason = f"NVML does not count energy here: {error}"
            return
        if not self._handles:
            self.reason = "NVML finds no GPU"

    def read(self) -> list[int]:
        """Millijoules of each GPU since its driver was loaded."""
        return [int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) for handle in self._handles]

    def joules(self, start: list[int], end: list[int]) -> float:
        return (sum(end) - sum(start)) / 1e3


class BatteryMeter:
    """The whole machine, while it runs on its battery: the power drawn at the two readings, times the time between.

    Coarse: a battery's controller renews its reading every second or so at best.
    """

    covers = "whole machine (battery, coarse)"

    def __init__(self, root: Path = _SUPPLIES, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._supplies = [supply for supply in sorted(root.glob("*")) if _text(supply / "type") == "Battery"]
        self.reason = ""
        if not self._supplies:
            self.reason = f"no battery under {root}"
        elif not any(_text(supply / "status") == "Discharging" for supply in self._supplies):
            self.reason = "the battery is not discharging: unplug the machine to measure by it"
        elif math.isnan(self.read()[1]):
            self.reason = f"no battery under {root} says its power"
        self.available = not self.reason

    def read(self) -> tuple[float, float]:
        """(seconds of a clock, watts drawn now); NaN watts where none is being drawn or no battery says."""
        drawn = [_watts(supply) for supply in self._supplies if _text(supply / "status") == "Discharging"]
        return self._clock(), sum(drawn) if drawn else math.nan

    def joules(self, start: tuple[float, float], end: tuple[float, float]) -> float:
        return (start[1] + end[1]) / 2 * (end[0] - start[0])


class CpuTimeEstimate:
    """Nothing is measured: the seconds that this process's threads computed, times a number of watts.

    Above idle alone: what the machine takes anyway is not this process's.
    """

    def __init__(self, watts_per_core: float, cpu_seconds: Callable[[], float] = time.process_time) -> None:
        self._watts, self.read = watts_per_core, cpu_seconds
        self.covers = f"estimate, not measured: {watts_per_core:g} W per busy core times processor time"
        self.available, self.reason = True, ""

    def joules(self, start: float, end: float) -> float:
        return (end - start) * self._watts


class Sum:
    """Several meters that count different things."""

    def __init__(self, meters: Sequence[Meter]) -> None:
        self._meters = [meter for meter in meters if meter.available]
        self.covers = ", ".join(meter.covers for meter in self._meters)
        self.available = bool(self._meters)
        self.reason = "" if self.available else "; ".join(meter.reason for meter in meters)

    def read(self) -> list[Any]:
        return [meter.read() for meter in self._meters]

    def joules(self, start: list[Any], end: list[Any]) -> float:
        triples = zip(self._meters, start, end, strict=True)
        return math.fsum(meter.joules(before, after) for meter, before, after in triples)


def measuring_meter(gpus: Sequence[int] | None = None) -> Meter:
    """What this machine counts: packages, and the GPUs of these numbers where a model runs on one; the battery where
    the packages are not counted."""
    packages = EnergyMeter()
    if gpus is not None:
        gpu = GpuMeter(gpus)
        # Without the GPU the rest would be a small part that looks like the whole.
        return Sum([packages, gpu]) if gpu.available else gpu
    return packages if packages.available else _battery_or(packages)


def _battery_or(packages: EnergyMeter) -> Meter:
    battery = BatteryMeter()
    return battery if battery.available else Sum([packages, battery])


def _text(path: Path) -> str:
    """Of a file that may not be there."""
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _watts(supply: Path) -> float:
    """`power_now` in microwatts, else `current_now` in microamperes times `voltage_now` in microvolts."""
    power, current, voltage = (_text(supply / name) for name in ("power_now", "current_now", "voltage_now"))
    # Some controllers count what flows out as negative.
    if power.lstrip("-").isdigit():
        return abs(int(power)) / 1e6
    if current.lstrip("-").isdigit() and voltage.isdigit():
        return abs(int(current)) * int(voltage) / 1e12
    return math.nan
