"""Options for how far a plugin is trusted, and what it may use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import typer

from inference_pio.security import ResourceLimits

# A limit that was not given must not limit, and a limit is always a number: more than any machine has.
_UNLIMITED = 1e9


def _limit(text: str, name: str, value: str = "GB") -> Any:
    return typer.Option(name, help=text, metavar=value, rich_help_panel="Limits", show_default=False)


@dataclass(frozen=True)
class LimitOptions:
    """How far its plugin is trusted, and what the model may use."""

    security_level: Annotated[
        Literal["low_trust", "medium_trust", "high_trust", "maximum_trust"] | None,
        _limit(
            "How far its plugin is trusted. Below maximum_trust, or with any limit, the model runs in a locked process "
            "of its own. (maximum_trust for plugins of this package, low_trust for others)",
            "--security-level",
            "LEVEL",
        ),
    ] = None
    enforcement: Annotated[
        Literal["strict", "best_effort"] | None,
        _limit(
            "Refuse a model whose limits cannot be held here, or run it and say so. (strict below high_trust)",
            "--enforcement",
            "strict|best_effort",
        ),
    ] = None
    memory_gb: Annotated[float | None, _limit("Limit of the model's memory, in GB.", "--memory-gb")] = None
    cpu_percent: Annotated[
        float | None,
        _limit("Limit of its processor time: 100 is one core, 400 four.", "--cpu-percent", "X"),
    ] = None
    gpu_memory_gb: Annotated[
        float | None,
        _limit("Limit of its GPU memory, in GB; 0 keeps it from every GPU.", "--gpu-memory-gb"),
    ] = None
    disk_gb: Annotated[
        float | None,
        _limit("Limit of all downloaded models together, and of what a model writes, in GB.", "--disk-gb"),
    ] = None
    network_mbps: Annotated[
        float | None, _limit("Limit of downloads, in Mbit/s; 0 downloads nothing.", "--network-mbps", "X")
    ] = None

    def stated(self) -> dict[str, float]:
        """Fields of `ResourceLimits` that were given."""
        given = {
            "memory_gb": self.memory_gb,
            "cpu_percent": self.cpu_percent,
            "gpu_memory_gb": self.gpu_memory_gb,
            "disk_space_gb": self.disk_gb,
            "network_bandwidth_mbps": self.network_mbps,
        }
        return {name: value for name, value in given.items() if value is not None}

    def limits(self) -> ResourceLimits | None:
        """The limits that were given; the others do not limit. None where none was."""
        stated = self.stated()
        if not stated:
            return None
        open_limits = dict.fromkeys(
            ("cpu_percent", "memory_gb", "gpu_memory_gb", "disk_space_gb", "network_bandwidth_mbps"),
            _UNLIMITED,
        )
        return ResourceLimits(**{**open_limits, **stated})
