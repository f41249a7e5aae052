"""What a parent does to hold one process to its limits: a control group where there can be one, else a watch."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from inference_pio.metrics.gpu_memory import GpuMemory
from inference_pio.security.levels import ResourceLimits
from inference_pio.worker.death import Death
from inference_pio.worker.gpu import GpuWatch
from inference_pio.worker.leaf import Leaf, make_leaf
from inference_pio.worker.scratch import Scratch
from inference_pio.worker.watch import Share, Watch

MOST_THREADS = 1024


class Holding:
    """
    Args:
        pid: of a child that has done nothing so far and has not been waited for.
        most_bytes: of memory of its own, until `tighten`; None: no limit.
        free_to_widen: it may take more processors than it is given, so that its time has to be counted.
        kill: ends it, with a reason.
        scratch: the folder that it may write to.
    """

    def __init__(
        self,
        pid: int,
        limits: ResourceLimits | None,
        most_bytes: int | None,
        *,
        free_to_widen: bool,
        kill: Callable[[str], None],
        scratch: Scratch | None = None,
    ) -> None:
        self._limits, self._leaf = limits, None if limits is None else _leaf_of(pid, limits)
        share = None
        if limits is not None and not (self._leaf and "cpu" in self._leaf.holds):
            counted = limits.cpu_percent % 100 or free_to_widen
            share = Share(limits.cpu_percent) if counted else None
        self.watch = Watch(pid, most_bytes, MOST_THREADS, share, kill, _rarely(pid, limits, scratch))

    @property
    def by_group(self) -> tuple[str, ...]:
        """What a control group holds, of "memory" and "cpu"."""
        return () if self._leaf is None else self._leaf.holds

    def tighten(self, most_bytes: int | None) -> None:
        """From now on this is all the memory it may have."""
        self.watch.most_bytes = most_bytes
        if self._leaf is not None and most_bytes is not None:
            self._leaf.limit_memory(most_bytes)

    def explained(self, death: Death) -> Death:
        """With what only a control group knows."""
        if self._leaf is None or self._limits is None or death.verdict or not self._leaf.ran_out():
            return death
        return replace(death, verdict=f"memory_gb {self._limits.memory_gb:g} exceeded: the system ended it")

    def close(self) -> None:
        """Once it has ended."""
        self.watch.close()
        if self._leaf is not None:
            self._leaf.remove()


def _rarely(
    pid: int, limits: ResourceLimits | None, scratch: Scratch | None
) -> list[Callable[[], str | None]]:
    found = [] if scratch is None else [scratch.problem]
    if limits is not None and limits.gpu_memory_gb and not (counter := GpuMemory()).reason:
        found.append(GpuWatch(pid, limits.gpu_memory_gb, counter).problem)
    return found


def _leaf_of(pid: int, limits: ResourceLimits) -> Leaf | None:
    leaf = make_leaf(f"inference-pio-{os.getpid()}-{pid}")
    if leaf is None:
        return None
    try:
        leaf.limit_processors(limits.cpu_percent)
        leaf.take_in(pid)
    except OSError:  # it is there and may not be used
        with suppress(OSError):
            leaf.remove()
        return None
    return leaf
