"""Limits are checked when they are set, and the report never claims what nothing holds."""

from __future__ import annotations

import math
from dataclasses import fields

import pytest

from inference_pio import ResourceLimits, SecurityLevel
from inference_pio.errors import ConfigError
from inference_pio.security.report import in_process_report, threads_for


def test_defaults_are_the_standards() -> None:
    assert vars(ResourceLimits.default()) == {
        "cpu_percent": 80.0,
        "memory_gb": 8.0,
        "gpu_memory_gb": 4.0,
        "disk_space_gb": 10.0,
        "network_bandwidth_mbps": 100.0,
    }
    assert [level.value for level in SecurityLevel] == [
        "low_trust",
        "medium_trust",
        "high_trust",
        "maximum_trust",
    ]


@pytest.mark.parametrize("value", [-1, math.nan, math.inf, "8GB", True, 0])
def test_wrong_limits(value: object) -> None:
    with pytest.raises(ConfigError, match="memory_gb"):
        ResourceLimits(memory_gb=value)  # type: ignore[arg-type]


def test_every_limit_is_reported_once_and_honestly() -> None:
    limits = ResourceLimits(gpu_memory_gb=2, network_bandwidth_mbps=5)
    report = in_process_report(SecurityLevel.LOW_TRUST, limits)
    data = report.as_dict()
    assert data["security_level"] == "low_trust"
    assert list(data["limits"]) == [field.name for field in fields(ResourceLimits)]
    assert data["limits"]["gpu_memory_gb"]["state"] == "NOT ENFORCED"
    assert data["limits"]["network_bandwidth_mbps"]["state"] == "NOT ENFORCED"
    assert {entry["state"] for entry in data["limits"].values()} == {"NOT ENFORCED", "PARTIAL"}
    assert len(report.lines()) == 5
    assert all(
        entry["how"] in line for entry, line in zip(data["limits"].values(), report.lines(), strict=True)
    )


@pytest.mark.parametrize(("percent", "threads"), [(10, 1), (80, 1), (100, 1), (101, 2), (200, 2), (450, 5)])
def test_threads_are_as_many_as_can_use_up_the_limit(percent: float, threads: int) -> None:
    assert threads_for(percent) == threads
