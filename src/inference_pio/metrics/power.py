"""Energy as the processor counts it (RAPL through Linux's powercap), where the machine lets us read it."""

from __future__ import annotations

from pathlib import Path

_POWERCAP = Path("/sys/class/powercap")


class EnergyMeter:
    """Joules between two readings; `available` is False, with `reason`, where nothing can be read."""

    def __init__(self, root: Path = _POWERCAP) -> None:
        self._zones = [zone for zone in sorted(root.glob("intel-rapl:*")) if zone.name.count(":") == 1]
        self.reason = ""
        if not self._zones:
            self.reason = f"no energy counters under {root}"
        else:
            try:
                self.read()
            except PermissionError:
                self.reason = "the energy counters may only be read by root"
        self.available = not self.reason

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
