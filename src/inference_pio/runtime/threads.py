"""How many threads compute."""

from __future__ import annotations

from inference_pio.errors import ResourceError
from inference_pio.metrics.hardware import usable_threads
from inference_pio.security import ResourceLimits
from inference_pio.security.report import threads_for


def threads_to_use(asked: int | None, limits: ResourceLimits | None, now: int) -> int | None:
    """None where torch's own number, `now`, is to stay.

    Raises:
        ResourceError: more are asked for than this process can keep busy, or than the limit allows.
    """
    allowed = threads_for(limits.cpu_percent) if limits is not None else None
    if asked is None:
        return None if allowed is None else min(allowed, now)
    usable = usable_threads()
    if asked > usable:
        raise ResourceError(
            f"threads {asked} is more than the {usable} that this process can keep busy (its processors and its "
            f"control group's quota, see inference-pio probe); ask for {usable} at most"
        )
    if allowed is not None and asked > allowed:
        assert limits is not None
        raise ResourceError(
            f"threads {asked} is more than the {allowed} that cpu_percent {limits.cpu_percent:g} allows: 100 is one; "
            f"ask for {allowed} at most, or raise cpu_percent"
        )
    return asked
