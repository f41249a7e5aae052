"""Progress bars for downloads and loading: on stderr, where a person looks at it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Report = Callable[[int, int, str], None]
"""Called with bytes done, bytes in total, and what is being done; from any thread."""


@contextmanager
def download_bars(quiet: bool) -> Iterator[Report | None]:
    """One bar for each thing reported, gone when the block is left; None where nobody looks."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
    from rich.progress import TransferSpeedColumn as SpeedColumn

    columns = (BarColumn(), DownloadColumn(), SpeedColumn(), TimeRemainingColumn(compact=True))
    bars = Progress(TextColumn("{task.description}"), *columns, console=Console(stderr=True), transient=True)
    tasks: dict[str, TaskID] = {}
    lock = threading.Lock()

    def report(done: int, total: int, what: str) -> None:
        with lock:
            if what not in tasks:
                for task in tasks.values():  # one thing after the other: what was before is done
                    bars.update(task, visible=False)
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

    with bars:
        yield report
