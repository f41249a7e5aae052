"""The standard's trust levels and resource limits."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from enum import Enum

from inference_pio.errors import ConfigError


class SecurityLevel(Enum):
    """The operator's word on a plugin; the names describe the plugin, not the walls around it."""

    LOW_TRUST = "low_trust"
    MEDIUM_TRUST = "medium_trust"
    HIGH_TRUST = "high_trust"
    MAXIMUM_TRUST = "maximum_trust"


@dataclass
class ResourceLimits:
    """What one plugin may use. cpu_percent: 100 is one core; memory in GB of 10⁹ bytes; network in Mbit/s."""

    cpu_percent: float = 80.0
    memory_gb: float = 8.0
    gpu_memory_gb: float = 4.0
    disk_space_gb: float = 10.0
    network_bandwidth_mbps: float = 100.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                raise ConfigError(f"{field.name} must be a number, got {value!r}")
            if value < 0 or (value == 0 and field.name in ("cpu_percent", "memory_gb")):
                raise ConfigError(f"{field.name} must be more than 0, got {value:g}")

    @classmethod
    def default(cls) -> ResourceLimits:
        return cls()
