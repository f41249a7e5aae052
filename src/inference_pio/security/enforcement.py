"""What holds of a level and of limits for a plugin in a worker here, by what a canary could not do."""

from __future__ import annotations

from collections.abc import Sequence

from inference_pio.errors import ResourceError, UsageError
from inference_pio.security.levels import ResourceLimits, SecurityLevel
from inference_pio.security.proof import Proof
from inference_pio.security.report import Enforcement, EnforcementReport, State

ENFORCEMENTS = ("strict", "best_effort")
_NEEDS_LANDLOCK = "a kernel from 5.13 on with Landlock among its security modules"
_NEEDS_FILTERS = "a kernel with seccomp filters, on x86_64 or aarch64"
_NEEDS_GROUPS = "control groups that this process may make: systemd-run --user --scope -p Delegate=yes …"
_CPU_TOLERANCE = 1.1
_WATCH = "a watch every 20 ms, less often the more is left"
_FRACTION = "pauses every 10 ms"


def worker_report(
    level: SecurityLevel,
    limits: ResourceLimits | None,
    proof: Proof,
    by_group: Sequence[str],
    gpu_uncounted: str = "",
) -> EnforcementReport:
    """Limits first, then walls. `by_group` is what a control group holds, of "memory" and "cpu"; `gpu_uncounted` is why
    nobody counts what a process has of a GPU's memory.
    """
    entries = [] if limits is None else _limits(level, limits, proof, by_group, gpu_uncounted)
    if level is not SecurityLevel.MAXIMUM_TRUST:
        entries += _walls(level, proof)
    return EnforcementReport(level, tuple(entries), () if proof.told is None else proof.told.locks)


def require(report: EnforcementReport, name: str) -> None:
    """
    Raises:
        ResourceError: nothing holds a limit or a wall; one line names each with its remedy.
    """
    missing = report.missing()
    if missing:
        listed = "; ".join(f"{entry.limit}: {entry.how}; needs {entry.remedy}" for entry in missing)
        raise ResourceError(
            f"{name}: what is asked for cannot be enforced here: {listed} (with enforcement best_effort it is loaded "
            "all the same)"
        )


def is_strict(level: SecurityLevel, enforcement: str | None) -> bool:
    """
    Raises:
        UsageError: there is no such enforcement.
    """
    if enforcement is None:
        return level in (SecurityLevel.LOW_TRUST, SecurityLevel.MEDIUM_TRUST)
    if enforcement not in ENFORCEMENTS:
        raise UsageError(f"enforcement must be one of {', '.join(ENFORCEMENTS)}, got {enforcement!r:.60}")
    return enforcement == "strict"


def _limits(
    level: SecurityLevel, limits: ResourceLimits, proof: Proof, by_group: Sequence[str], gpu_uncounted: str
) -> list[Enforcement]:
    return [
        _cpu(limits.cpu_percent, proof, by_group),
        _memory(limits.memory_gb, proof, by_group),
        _graphics(level, limits.gpu_memory_gb, proof, gpu_uncounted),
        _disk(level, limits.disk_space_gb, proof),
        _network(level, limits.network_bandwidth_mbps, proof),
    ]


def _cpu(percent: float, proof: Proof, by_group: Sequence[str]) -> Enforcement:
    ways = ["a control group"] if "cpu" in by_group else []
    if proof.refused("more processors"):
        ways.append("its processors and no more")
    if not by_group and percent % 100:
        ways.append(_FRACTION)
    how = ", ".join(ways) or f"{_FRACTION}, and a set of processors"
    got = proof.cores
    if got is None:
        return Enforcement("cpu_percent", percent, "SET", how, (proof.why,) if proof.why else ())
    words = f"{how}: a child with more threads got {100 * got:.0f} %"
    if 100 * got <= percent * _CPU_TOLERANCE:
        return Enforcement("cpu_percent", percent, "VERIFIED", words)
    return Enforcement("cpu_percent", percent, "NOT ENFORCED", words, remedy=_NEEDS_GROUPS)


def _memory(gigabytes: float, proof: Proof, by_group: Sequence[str]) -> Enforcement:
    group = "a control group, " if "memory" in by_group else ""
    if not proof.refused("memory"):
        state: State = "SET" if group else "PARTIAL"
        gap = f"what is allocated within 20 ms{'; ' + proof.why if proof.why else ''}"
        return Enforcement("memory_gb", gigabytes, state, f"{group}{_WATCH}", () if group else (gap,))
    how = f"{group}RLIMIT_DATA, and {_WATCH}"
    if proof.refused("memory without a name", "shared memory", "fork"):
        return Enforcement("memory_gb", gigabytes, "VERIFIED", f"{how}; no shared memory, no children")
    if group:
        return Enforcement(
            "memory_gb", gigabytes, "VERIFIED", f"{how}; the group counts shared memory and children"
        )
    gaps = ("shared memory and children are only watched",)
    return Enforcement("memory_gb", gigabytes, "PARTIAL", how, gaps)


def _graphics(level: SecurityLevel, gigabytes: float, proof: Proof, uncounted: str) -> Enforcement:
    if gigabytes:
        how = "a larger plan is refused before loading, and the allocator has no more"
        gap = f"memory that others than torch's allocator take: {uncounted}"
        if not uncounted:
            how, gap = f"{how}; a watch every 250 ms (NVML)", "what is allocated within 250 ms"
        return Enforcement("gpu_memory_gb", gigabytes, "PARTIAL", how, (gap,))
    if level is SecurityLevel.MAXIMUM_TRUST:
        return _without_walls(
            "gpu_memory_gb", 0.0, "no device is shown to CUDA, and nothing keeps it from one"
        )
    if proof.refused("graphics") and proof.state("files") != "missing":
        return Enforcement("gpu_memory_gb", 0.0, "VERIFIED", "no device of a GPU can be opened")
    return Enforcement("gpu_memory_gb", 0.0, "NOT ENFORCED", _why(proof, "files"), remedy=_NEEDS_LANDLOCK)


def _disk(level: SecurityLevel, gigabytes: float, proof: Proof) -> Enforcement:
    if level is SecurityLevel.MAXIMUM_TRUST:
        how = "RLIMIT_FSIZE holds each file; it may write anywhere, and nothing adds that up"
        return _without_walls("disk_space_gb", gigabytes, how)
    if not proof.refused("write", "temporary file"):
        return Enforcement(
            "disk_space_gb", gigabytes, "NOT ENFORCED", _why(proof, "files"), remedy=_NEEDS_LANDLOCK
        )
    if "long file" in (proof.told.attempts if proof.told else {}):
        gaps = ["what is written within 250 ms", "a file that was unlinked counts by itself"]
        if not proof.refused("long file"):
            gaps.append("a file may be longer for a moment")
        how = "it writes to one folder of its own: RLIMIT_FSIZE, and a watch every 250 ms"
        return Enforcement("disk_space_gb", gigabytes, "PARTIAL", how, tuple(gaps))
    return Enforcement(
        "disk_space_gb", gigabytes, "VERIFIED", "it can write no file; the model cache is the parent's"
    )


def _network(level: SecurityLevel, mbps: float, proof: Proof) -> Enforcement:
    if level is SecurityLevel.MAXIMUM_TRUST:
        fetched = "comes through one bucket of that rate" if mbps else "is nothing"
        how = f"what is downloaded for it {fetched}; it may open sockets of its own"
        return _without_walls("network_bandwidth_mbps", mbps, how)
    if proof.refused("tcp", "udp", "unix socket"):
        if not mbps:
            return Enforcement(
                "network_bandwidth_mbps", mbps, "VERIFIED", "it has no socket; nothing is downloaded for it"
            )
        how = "it has no socket; what its parent downloads for it comes through one bucket of that rate"
        return Enforcement("network_bandwidth_mbps", mbps, "SET", how)
    how = _why(proof, "system calls")
    return Enforcement("network_bandwidth_mbps", mbps, "NOT ENFORCED", how, remedy=_NEEDS_FILTERS)


def _without_walls(limit: str, value: float, how: str) -> Enforcement:
    return Enforcement(limit, value, "NOT ENFORCED", how, remedy="a level below maximum_trust")


def _walls(level: SecurityLevel, proof: Proof) -> Sequence[Enforcement]:
    files = _wall("files", proof, ("read", "list", "write"), proof.gaps("files"), "files", _NEEDS_LANDLOCK)
    calls = ["tcp"] if level is SecurityLevel.HIGH_TRUST else ["tcp", "execute", "fork"]
    filters = _wall("system calls", proof, calls, (), "system calls", _NEEDS_FILTERS)
    signals = _wall("signals", proof, ["signal to the parent"], (), "system calls", _NEEDS_FILTERS)
    return [files, filters, signals, _rights(proof)]


def _rights(proof: Proof) -> Enforcement:
    if proof.state("privileges") == "missing":
        how = _why(proof, "privileges")
        return Enforcement(
            "privileges", None, "NOT ENFORCED", how, remedy="a start as another user than root"
        )
    how = "another user than root, and no way back"
    if not proof.refused("root"):
        how = "no capabilities, and none can be gained"
    gaps = proof.gaps("privileges")
    state: State = "VERIFIED" if proof.refused("root", "capabilities") and not gaps else "PARTIAL"
    return Enforcement("privileges", None, state, how, gaps)


def _wall(
    name: str, proof: Proof, attempts: Sequence[str], gaps: tuple[str, ...], lock: str, remedy: str
) -> Enforcement:
    if not proof.refused(*attempts):
        return Enforcement(name, None, "NOT ENFORCED", _why(proof, lock), remedy=remedy)
    state: State = "PARTIAL" if gaps else "VERIFIED"
    return Enforcement(name, None, state, f"refused to a child: {', '.join(attempts)}", gaps)


def _why(proof: Proof, lock: str) -> str:
    return ", ".join(proof.gaps(lock)) or "a child could do it all the same"
