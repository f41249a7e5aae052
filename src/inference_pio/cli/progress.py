"""Progress bars for downloads, loading and rounds: on stderr, where a person looks at it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import ProgressColumn

Report = Callable[[int, int, str], None]
"""Called with bytes done, bytes in total, and what is being done; from any thread."""

_MOST_BARS = 64  # a worker says what is being done, and each time it may be something else


@contextmanager
def download_bars(quiet: bool) -> Iterator[Report | None]:
    """One bar for each thing reported, gone when the block is left; None where nobody looks."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.progress import DownloadColumn, TimeRemainingColumn
    from rich.progress import TransferSpeedColumn as SpeedColumn

    with _bars(DownloadColumn(), SpeedColumn(), TimeRemainingColumn(compact=True)) as report:
        yield report


@contextmanager
def round_bars(quiet: bool) -> Iterator[Report | None]:
    """The same for things that are counted: rounds of a measurement, questions. It is drawn when one is done, and not
    while the next is timed."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.progress import MofNCompleteColumn, TimeElapsedColumn

    with _bars(MofNCompleteColumn(), TimeElapsedColumn(), alive=False) as report:
        yield report


@contextmanager
def _bars(*columns: ProgressColumn, alive: bool = True) -> Iterator[Report]:
    """`alive`: drawn again several times a second, whatever is reported."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn

    shown = (TextColumn("{task.description}", markup=False), BarColumn(), *columns)
    bars = Progress(*shown, console=Console(stderr=True), transient=True, auto_refresh=alive)
    tasks: dict[str, TaskID] = {}
    lock = threading.Lock()

    def report(done: int, total: int, what: str) -> None:
        with lock:
            if what not in tasks:
                if len(tasks) == _MOST_BARS:
                    bars.remove_task(tasks.pop(next(iter(tasks))))
                for task in tasks.values():  # one thing after the other: what was before is done
                    bars.update(task, visible=False)
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total, refresh=not alive)

    with bars:
        yield report
