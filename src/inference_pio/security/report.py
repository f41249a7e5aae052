"""What is enforced of a plugin's limits, in words and as data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from inference_pio.security.confine import Lock
from inference_pio.security.levels import ResourceLimits, SecurityLevel

State = Literal["VERIFIED", "SET", "PARTIAL", "NOT ENFORCED"]


@dataclass(frozen=True)
class Enforcement:
    """One limit, or one wall.

    value   the limit; None for what is no number
    state   "VERIFIED": a child in the same place was stopped by it; "SET": it is in force, and was not tried;
            "PARTIAL": it holds but for `gaps`; "NOT ENFORCED"
    how     what holds it
    remedy  what would make it hold; empty where nothing is missing
    """

    limit: str
    value: float | None
    state: State
    how: str
    gaps: tuple[str, ...] = ()
    remedy: str = ""


@dataclass(frozen=True)
class EnforcementReport:
    """Every limit exactly once, then the walls of the level. `locks` are those of the child that tried: who is to be
    held by as much is to say no less.
    """

    security_level: SecurityLevel
    entries: tuple[Enforcement, ...]
    locks: tuple[Lock, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return {
            "security_level": self.security_level.value,
            "limits": {entry.limit: asdict(entry) for entry in self.entries},
        }

    def lines(self) -> list[str]:
        return [_line(entry) for entry in self.entries]

    def missing(self) -> tuple[Enforcement, ...]:
        """What was asked for and nothing holds."""
        return tuple(entry for entry in self.entries if entry.state == "NOT ENFORCED")


def in_process_report(level: SecurityLevel, limits: ResourceLimits) -> EnforcementReport:
    """What this process holds of `limits` for a plugin that runs inside it."""
    apart = (
        "a process of its own: load it with these limits through initialize_plugin, LLM or the command line"
    )

    def entry(limit: str, state: State, how: str) -> Enforcement:
        return Enforcement(limit, getattr(limits, limit), state, how, remedy=apart)

    return EnforcementReport(
        level,
        (
            entry("cpu_percent", "PARTIAL", f"{threads_for(limits.cpu_percent)} compute threads"),
            entry("memory_gb", "PARTIAL", "a model whose plan is larger is refused before loading"),
            entry("gpu_memory_gb", "NOT ENFORCED", "nothing in this process holds it"),
            entry("disk_space_gb", "PARTIAL", "the model cache may not grow past it"),
            entry("network_bandwidth_mbps", "NOT ENFORCED", "nothing in this process holds it"),
        ),
    )


def threads_for(cpu_percent: float) -> int:
    """Threads that can use up a limit where 100 is one core: rounded up."""
    return max(1, math.ceil(cpu_percent / 100))


def _line(entry: Enforcement) -> str:
    name = entry.limit if entry.value is None else f"{entry.limit} = {entry.value:g}"
    tail = _listed("gaps", entry.gaps) + (f"; to make it hold: {entry.remedy}" if entry.remedy else "")
    return f"{name}: {entry.state}: {entry.how}{tail}"


def _listed(title: str, words: Sequence[str]) -> str:
    return f"; {title}: {', '.join(words)}" if words else ""
