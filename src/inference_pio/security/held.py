"""Limits that this whole process is held to, whatever runs in it: set once, by who holds it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from inference_pio.security.levels import ResourceLimits

_limits: list[ResourceLimits] = []


@contextmanager
def held_to(limits: ResourceLimits) -> Iterator[None]:
    """What is planned, fetched and computed in this process meanwhile stays within them."""
    _limits.append(limits)
    try:
        yield
    finally:
        _limits.pop()


def limits_here() -> ResourceLimits | None:
    """None: the process as such has none."""
    return _limits[-1] if _limits else None
