"""How often a worker is started again, and how long it may do nothing."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

MOST_CRASHES, WITHIN_SECONDS = 5, 300.0
_LONGEST_WAIT = 60.0
_LEAST_STALL = 10.0
_STALL_BY_STEP = 20
_STEPS_KNOWN = 200
LONGEST_SILENCE = 300.0


@dataclass
class Restarts:
    """Seconds before each start: none after the first crash, then 1, 2, 4 … 60; after five within five minutes none
    any more. `now` is of a clock that never goes back.
    """

    _crashes: deque[float] = field(default_factory=deque)

    def after_crash(self, now: float) -> float | None:
        """Seconds to wait; None: it is broken."""
        self._crashes.append(now)
        while self._crashes and self._crashes[0] <= now - WITHIN_SECONDS:
            self._crashes.popleft()
        count = len(self._crashes)
        if count >= MOST_CRASHES:
            return None
        return 0.0 if count == 1 else float(min(_LONGEST_WAIT, 2 ** (count - 2)))


@dataclass
class Progress:
    """Whether an engine that has work gets on: steps, and not that its process is there, are what counts."""

    _steps: int = -1
    _since: float = 0.0
    _durations: deque[float] = field(default_factory=lambda: deque(maxlen=_STEPS_KNOWN))

    def seen(self, steps: int, busy: bool, now: float) -> None:
        """What an engine says of itself."""
        if steps > self._steps >= 0:
            self._durations.append((now - self._since) / (steps - self._steps))
        if steps != self._steps or not busy:
            self._steps, self._since = steps, now

    def start(self, now: float) -> None:
        """A new process."""
        self._steps, self._since = -1, now

    def stalled(self, now: float) -> float | None:
        """Seconds without a step, where those are too many."""
        silent = now - self._since
        return silent if silent > self.most_seconds else None

    @property
    def most_seconds(self) -> float:
        """10, or 20 times what all but the slowest hundredth of steps take."""
        if not self._durations:
            return _LEAST_STALL
        ranked = sorted(self._durations)
        return max(_LEAST_STALL, _STALL_BY_STEP * ranked[int(0.99 * (len(ranked) - 1))])


@dataclass
class Word:
    """Whether a worker that is starting still tells of it. Some steps of that take minutes, and none five."""

    _last: float | None = None

    def nothing(self) -> None:
        """It begins now, whenever that is: the next question starts the clock."""
        self._last = None

    def came(self, now: float) -> None:
        self._last = now

    def missing(self, now: float) -> float | None:
        """Seconds without a word, where those are too many."""
        if self._last is None:
            self._last = now
        silent = now - self._last
        return silent if silent > LONGEST_SILENCE else None
