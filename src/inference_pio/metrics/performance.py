"""The standard's record of one measurement."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self


@dataclass
class PerformanceMetrics:
    """Filled from counters, of every request and of every benchmark. A figure this machine cannot measure is NaN,
    never 0.

    accuracy_score is what the accuracy benchmark states (0 to 1); resource_utilization maps a resource to its share
    or figure, with the unit in its name.
    """

    latency_ms: float = 0.0
    throughput_tokens_per_sec: float = 0.0
    memory_usage_gb: float = 0.0
    power_consumption_watts: float = 0.0
    accuracy_score: float = 0.0
    resource_utilization: dict[str, float] = field(default_factory=dict)

    @classmethod
    def unmeasured(cls) -> Self:
        """Nothing is known yet."""
        return cls(math.nan, math.nan, math.nan, math.nan, math.nan)

    def complete(self, other: PerformanceMetrics) -> None:
        """Take from `other` what is not known here."""
        for field_ in fields(self):
            mine = getattr(self, field_.name)
            if isinstance(mine, float) and math.isnan(mine):
                setattr(self, field_.name, getattr(other, field_.name))
        self.resource_utilization = {**other.resource_utilization, **self.resource_utilization}

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as JSON has it: None where a figure is NaN."""
        plain = asdict(self)
        plain["resource_utilization"] = _known(self.resource_utilization)
        return _known(plain)


def _known(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in figures.items()
    }
