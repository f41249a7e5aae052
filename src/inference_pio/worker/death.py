"""Why a worker ended, in words, and whether a request could be to blame."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass

_MEANINGS = {
    signal.SIGSEGV: "it touched memory that is not its own",
    signal.SIGBUS: "memory behind a file went away: a model file changed on the disk",
    signal.SIGABRT: "it gave up by itself",
    signal.SIGILL: "it has an instruction that this processor does not know",
    signal.SIGFPE: "a division by zero",
    signal.SIGSYS: "a system call of another architecture",
    signal.SIGXCPU: "its processor time was used up",
}
_FROM_OUTSIDE = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
_MOST_LINES, _MOST_COLUMNS = 3, 200


@dataclass(frozen=True)
class Death:
    """
    status    as `subprocess` has it: minus the signal that ended it, else the exit code
    verdict   why its parent ended it; empty where it did not
    last      of what it printed last
    """

    status: int
    verdict: str = ""
    last: Sequence[str] = ()

    @property
    def blames_requests(self) -> bool:
        """Whether what it computed may be the reason: not where somebody else killed it."""
        return bool(self.verdict) or -self.status not in _FROM_OUTSIDE

    @property
    def cause(self) -> str:
        """One line."""
        said = f"; it said: {' | '.join(self._told())}" if self._told() else ""
        return f"{self.verdict or self._ended()}{said}"

    def _ended(self) -> str:
        if self.status >= 0:
            return f"it exited with {self.status}"
        try:
            name = signal.Signals(-self.status)
        except ValueError:
            return f"ended by signal {-self.status}"
        if name in _FROM_OUTSIDE:
            return f"ended by {name.name} from outside (the system does that too when memory runs out)"
        return f"ended by {name.name}: {_MEANINGS.get(name, 'unasked')}"

    def _told(self) -> list[str]:
        lines = [line.strip() for line in self.last if line.strip()]
        return [
            "".join(c if c.isprintable() else " " for c in line[:_MOST_COLUMNS])
            for line in lines[-_MOST_LINES:]
        ]
