"""How often a worker is started again, and how long it may do nothing."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from inference_pio.worker.messages import Pong

MOST_CRASHES, WITHIN_SECONDS = 5, 300.0
_LONGEST_WAIT = 60.0
_LEAST_STALL = 10.0
_STALL_BY_STEP = 20
_STALL_BY_TOKEN = 4
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
    _tokens: int = 0
    _under_way: int = 0
    _since: float = 0.0
    _by_step: deque[float] = field(default_factory=lambda: deque(maxlen=_STEPS_KNOWN))
    _by_token: deque[float] = field(default_factory=lambda: deque(maxlen=_STEPS_KNOWN))

    def seen(self, said: Pong, now: float) -> None:
        """What an engine says of itself."""
        self._under_way = said.under_way
        if said.steps > self._steps >= 0:
            seconds = now - self._since
            self._by_step.append(seconds / (said.steps - self._steps))
            self._by_token.append(seconds / max(1, said.tokens - self._tokens))
        if said.steps != self._steps or not said.busy:
            self._steps, self._tokens, self._since = said.steps, said.tokens, now

    def start(self, now: float) -> None:
        """A new process."""
        self._steps, self._under_way, self._since = -1, 0, now

    def stalled(self, now: float) -> float | None:
        """Seconds without a step, where those are too many."""
        silent = now - self._since
        return silent if silent > self.most_seconds else None

    @property
    def most_seconds(self) -> float:
        """10, or 20 times what all but the slowest hundredth of steps take, or 4 times what the tokens of the one that
        runs would take each by itself; 300 where no step is known, which is the most.
        """
        if not self._by_step:
            return LONGEST_SILENCE
        by_tokens = _STALL_BY_TOKEN * self._under_way * _nearly_longest(self._by_token)
        return min(
            LONGEST_SILENCE, max(_LEAST_STALL, _STALL_BY_STEP * _nearly_longest(self._by_step), by_tokens)
        )


def _nearly_longest(times: Sequence[float]) -> float:
    return sorted(times)[int(0.99 * (len(times) - 1))]


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
