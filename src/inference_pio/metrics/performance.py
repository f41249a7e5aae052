"""The standard's record of one measurement."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class PerformanceMetrics:
    """Filled by the benchmarks. A figure this machine cannot measure is NaN, never 0.

    accuracy_score is what the accuracy benchmark states (0 to 1); resource_utilization maps a resource to its share
    or figure, with the unit in its name.
    """

    latency_ms: float = 0.0
    throughput_tokens_per_sec: float = 0.0
    memory_usage_gb: float = 0.0
    power_consumption_watts: float = 0.0
    accuracy_score: float = 0.0
    resource_utilization: dict[str, float] = field(default_factory=dict)
