"""Progress bars on stderr, only where a person looks at it: elsewhere what draws them is not even imported."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress
    from rich.status import Status


class Bar:
    """A bar over `total` things."""

    def __init__(self, what: str, total: int) -> None:
        self._progress = _drawn_bar() if sys.stderr.isatty() else None
        if self._progress is not None:
            self._task = self._progress.add_task(what, total=total)

    def advance(self) -> None:
        if self._progress is not None:
            self._progress.advance(self._task)

    def __enter__(self) -> Self:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()


class Counter:
    """A line that says what is being done, of work whose length nobody knows."""

    def __init__(self, what: str) -> None:
        self._what, self._done = what, 0
        self._status = _drawn_line(what) if sys.stderr.isatty() else None

    def tell(self, doing: str) -> None:
        """The next piece of work."""
        self._done += 1
        if self._status is not None:
            self._status.update(f"{self._what} {self._done}: {doing}")

    def __enter__(self) -> Self:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()


def _drawn_bar() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True))


def _drawn_line(what: str) -> Status:
    from rich.console import Console

    return Console(stderr=True).status(what)
