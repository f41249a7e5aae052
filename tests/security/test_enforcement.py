"""What is said to hold is what a child could not do, and what nothing holds refuses the model."""

from __future__ import annotations

from typing import Any

import pytest

from inference_pio import ResourceLimits, SecurityLevel
from inference_pio.errors import ResourceError, UsageError
from inference_pio.security.canary import Told
from inference_pio.security.confine import Lock
from inference_pio.security.enforcement import is_strict, require, worker_report
from inference_pio.security.proof import Proof

LOW = SecurityLevel.LOW_TRUST
REFUSED = dict.fromkeys(
    (
        *(
            "read",
            "list",
            "write",
            "temporary file",
            "tcp",
            "udp",
            "unix socket",
            "execute",
            "fork",
            "memory",
        ),
        *("memory without a name", "shared memory", "signal to the parent", "more processors", "graphics"),
        *("root", "capabilities"),
    ),
    "EACCES",
)
LIMITS = ResourceLimits(cpu_percent=100, memory_gb=1, gpu_memory_gb=0, network_bandwidth_mbps=0)
LOCKS = (Lock("files", "set"), Lock("system calls", "set"), Lock("privileges", "set"))


def states(attempts: dict[str, str], *, cores: float | None = 1.0, locks: Any = LOCKS) -> dict[str, str]:
    report = worker_report(LOW, LIMITS, Proof(Told(locks, attempts, cores)), ())
    return {entry.limit: entry.state for entry in report.entries}


def test_everything_holds_where_nothing_could_be_done() -> None:
    assert set(states(REFUSED).values()) == {"VERIFIED"}
    require(worker_report(LOW, LIMITS, Proof(Told(LOCKS, REFUSED, 1.0)), ()), "m")


# What a child could do, or was not asked to try -> what is not said to be verified then.
_HELD_BY = {
    "read": "files",
    "list": "files",
    "write": "disk_space_gb",
    "temporary file": "disk_space_gb",
    "tcp": "network_bandwidth_mbps",
    "udp": "network_bandwidth_mbps",
    "unix socket": "network_bandwidth_mbps",
    "execute": "system calls",
    "fork": "system calls",
    "memory": "memory_gb",
    "shared memory": "memory_gb",
    "memory without a name": "memory_gb",
    "signal to the parent": "signals",
    "graphics": "gpu_memory_gb",
    "root": "privileges",
    "capabilities": "privileges",
}


@pytest.mark.parametrize("attempt", _HELD_BY)
@pytest.mark.parametrize("came", ["done", None], ids=["it could", "it did not try"])
def test_what_a_child_could_do_is_not_verified(attempt: str, came: str | None) -> None:
    attempts = {name: word for name, word in {**REFUSED, attempt: came}.items() if word is not None}
    assert states(attempts)[_HELD_BY[attempt]] != "VERIFIED"
    assert states(REFUSED)[_HELD_BY[attempt]] == "VERIFIED"


def test_processors_are_measured() -> None:
    assert states(REFUSED, cores=1.09)["cpu_percent"] == "VERIFIED"
    assert states(REFUSED, cores=1.2)["cpu_percent"] == "NOT ENFORCED"
    assert states(REFUSED, cores=None)["cpu_percent"] == "SET"


def test_privileges_that_stay() -> None:
    kept = (*LOCKS[:2], Lock("privileges", "missing", ("capset: no",)))
    assert states(REFUSED, locks=kept)["privileges"] == "NOT ENFORCED"


def test_what_nothing_holds_refuses_the_model() -> None:
    report = worker_report(LOW, LIMITS, Proof(None, "the canary could not run: no"), ())
    with pytest.raises(ResourceError) as caught:
        require(report, "m")
    for word in (
        "m: what is asked for cannot be enforced here",
        "files",
        "needs a kernel from 5.13",
        "best_effort",
    ):
        assert word in str(caught.value)


def test_strict_is_what_is_trusted_less() -> None:
    assert [is_strict(level, None) for level in SecurityLevel] == [True, True, False, False]
    assert [is_strict(LOW, "best_effort"), is_strict(SecurityLevel.HIGH_TRUST, "strict")] == [False, True]
    with pytest.raises(UsageError, match="enforcement must be one of strict, best_effort, got 'x'"):
        is_strict(LOW, "x")
