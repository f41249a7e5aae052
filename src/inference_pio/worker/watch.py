"""A parent's eye on one worker: memory beyond its limit ends it, time beyond its share lets it pause."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from time import CLOCK_MONOTONIC, clock_gettime

_PERCENT = 100.0
_PACE_SECONDS = 0.01
_SOONEST_SECONDS, _LATEST_SECONDS = 0.02, 0.25
_FASTEST_BYTES = 20e9  # a second: no process touches memory for the first time any faster
_BURST_SECONDS = 0.05  # of processor time that may be saved up
_OF_A_PROCESS = 2  # what clock ids of the kernel say of a process's processor time


@dataclass
class Share:
    """Processor time by the clock: a bucket that fills with `percent` of each second. 100 is one processor.

    A process that has used up its share is stopped until there is some again; it does not notice.
    """

    percent: float
    _left: float = _BURST_SECONDS
    _at: float = 0.0
    _used: float = 0.0
    paused: bool = False

    def start(self, now: float, used: float) -> None:
        self._at, self._used, self._left, self.paused = now, used, _BURST_SECONDS, False

    def due(self, now: float, used: float) -> bool | None:
        """Whether to pause (True) or to go on (False); None: as it is. `used` are seconds of the process so far."""
        self._left += (now - self._at) * self.percent / _PERCENT - (used - self._used)
        self._left = min(self._left, _BURST_SECONDS)
        self._at, self._used = now, used
        wanted = self._left < 0 if not self.paused else self._left < _BURST_SECONDS / 2
        if wanted == self.paused:
            return None
        self.paused = wanted
        return wanted


@dataclass
class Watch:
    """
    Args:
        pid: of a child that has not been waited for, so that the number is nobody else's.
        most_bytes: of memory of its own, files that it only maps left out; None: no limit.
        most_threads: that it may have.
        share: of processor time; None: none that needs pauses.
        rarely: what is looked at every 250 ms; each says why the process has to end, or None.
        kill: called with the reason.
    """

    pid: int
    most_bytes: int | None
    most_threads: int
    share: Share | None
    kill: Callable[[str], None]
    rarely: Sequence[Callable[[], str | None]] = ()
    peak_bytes: int = 0
    _own_bytes: int = 0
    _look_due: float = 0.0
    _rarely_due: float = 0.0
    _status: int = field(init=False)

    def __post_init__(self) -> None:
        self._status = os.open(f"/proc/{self.pid}/status", os.O_RDONLY | os.O_CLOEXEC)
        if self.share is not None:
            self.share.start(clock_gettime(CLOCK_MONOTONIC), self.seconds())

    @property
    def interval(self) -> float:
        """Seconds until the next look."""
        return self._memory_seconds() if self.share is None else _PACE_SECONDS

    def look(self) -> None:
        """Once."""
        with suppress(ProcessLookupError):  # it ended since
            if self.share is not None:
                self._pace(self.share)
            if (now := clock_gettime(CLOCK_MONOTONIC)) >= self._look_due:
                self._look_at_all()
                self._look_due = now + self._memory_seconds()

    def _memory_seconds(self) -> float:
        """The less it has left, the sooner: what a look finds costs time that the model has not."""
        if self.most_bytes is None:
            return _LATEST_SECONDS
        left = (self.most_bytes - self._own_bytes) / _FASTEST_BYTES
        return min(max(left, _SOONEST_SECONDS), _LATEST_SECONDS)

    def _look_at_all(self) -> None:
        figures = self._figures()
        used = self._own_bytes = _own(figures)
        self.peak_bytes = max(self.peak_bytes, used)
        if self.most_bytes is not None and used > self.most_bytes:
            self.kill(f"memory_gb {self.most_bytes / 1e9:g} exceeded: it has {used / 1e9:.2f} GB")
        if (threads := figures.get("Threads", 0)) > self.most_threads:
            self.kill(f"{threads} threads: {self.most_threads} are allowed")
        if self.rarely and (now := clock_gettime(CLOCK_MONOTONIC)) >= self._rarely_due:
            self._rarely_due = now + _LATEST_SECONDS
            for problem in filter(None, (look() for look in self.rarely)):
                self.kill(problem)

    def own_bytes(self) -> int:
        """Memory that is the process's own, what is swapped out included.

        Raises:
            ProcessLookupError: it has ended.
        """
        return _own(self._figures())

    def resident_bytes(self) -> int:
        """All that is in memory."""
        return self._figures().get("VmRSS", 0)

    def seconds(self) -> float:
        """Processor time of the process so far.

        Raises:
            ProcessLookupError: it has ended.
        """
        try:
            return clock_gettime(~self.pid << 3 | _OF_A_PROCESS)
        except OSError as error:
            raise ProcessLookupError from error

    def close(self) -> None:
        os.close(self._status)

    def _pace(self, share: Share) -> None:
        due = share.due(clock_gettime(CLOCK_MONOTONIC), self.seconds())
        if due is not None:
            os.kill(self.pid, signal.SIGSTOP if due else signal.SIGCONT)

    def _figures(self) -> dict[str, int]:
        """Fields of its status, those of memory in bytes."""
        found = {}
        for line in os.pread(self._status, 1 << 14, 0).decode().splitlines():
            name, _, value = line.partition(":")
            if value.endswith(" kB"):
                found[name] = int(value[:-3]) * 1024
            elif name == "Threads":
                found[name] = int(value)
        return found


def _own(figures: Mapping[str, int]) -> int:
    return sum(figures.get(name, 0) for name in ("RssAnon", "RssShmem", "VmSwap"))
