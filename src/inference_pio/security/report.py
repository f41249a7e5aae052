"""What is enforced of a plugin's limits in this process, in words."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from inference_pio.security.levels import ResourceLimits, SecurityLevel


@dataclass(frozen=True)
class Enforcement:
    """One limit: whether something holds it, how, and what would."""

    limit: str
    value: float
    status: Literal["enforced", "partly enforced", "not enforced"]
    how: str


@dataclass(frozen=True)
class EnforcementReport:
    """Every limit exactly once. An in-process plugin shares the process with the engine, so most are not held."""

    security_level: SecurityLevel
    entries: tuple[Enforcement, ...]

    def as_dict(self) -> dict[str, Any]:
        return {
            "security_level": self.security_level.value,
            "limits": {entry.limit: asdict(entry) for entry in self.entries},
        }

    def lines(self) -> list[str]:
        return [f"{entry.limit} = {entry.value:g}: {entry.status}: {entry.how}" for entry in self.entries]


def in_process_report(level: SecurityLevel, limits: ResourceLimits) -> EnforcementReport:
    """What this process holds of `limits` for a plugin that runs inside it."""
    needs_worker = "needs the plugin in a process of its own, which this version does not offer"
    return EnforcementReport(
        level,
        (
            Enforcement(
                "cpu_percent",
                limits.cpu_percent,
                "partly enforced",
                f"{threads_for(limits.cpu_percent)} compute threads; a fraction of a core " + needs_worker,
            ),
            Enforcement(
                "memory_gb",
                limits.memory_gb,
                "partly enforced",
                "a model whose plan is larger is refused before loading; growth later " + needs_worker,
            ),
            Enforcement(
                "gpu_memory_gb", limits.gpu_memory_gb, "not enforced", "a limit on GPU memory " + needs_worker
            ),
            Enforcement(
                "disk_space_gb",
                limits.disk_space_gb,
                "partly enforced",
                "the model cache may not grow past it; other files " + needs_worker,
            ),
            Enforcement(
                "network_bandwidth_mbps",
                limits.network_bandwidth_mbps,
                "not enforced",
                "a limit on network use " + needs_worker,
            ),
        ),
    )


def threads_for(cpu_percent: float) -> int:
    """Whole threads under a limit where 100 is one core: rounded down, at least one."""
    return max(1, int(cpu_percent // 100))
