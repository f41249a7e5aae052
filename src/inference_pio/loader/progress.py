"""How a download tells its caller where it is, without drawing anything itself."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

Progress = Callable[[int, int, str], None]
"""`(done_bytes, total_bytes, what)`: called some ten times a second at most, from any thread."""

POLL_SECONDS = 0.1


def silent(done_bytes: int, total_bytes: int, what: str) -> None:
    """The progress callback of a caller that wants none."""


def file_sizes(folder: Path) -> list[int]:
    """Sizes in bytes of the regular files below `folder`; a file that vanishes meanwhile is left out."""
    sizes = []
    # os.walk, unlike Path.rglob, does not raise where a folder vanishes too.
    for place, _, files in os.walk(folder):
        for file in files:
            try:
                status = os.lstat(os.path.join(place, file))
            except FileNotFoundError:
                continue
            if stat.S_ISREG(status.st_mode):
                sizes.append(status.st_size)
    return sizes


@contextmanager
def watching(report: Callable[[], None]) -> Iterator[None]:
    """Call `report` every `POLL_SECONDS` from another thread while the body runs."""
    stop = threading.Event()

    def poll() -> None:
        while not stop.wait(POLL_SECONDS):
            report()

    thread = threading.Thread(target=poll, name="download-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
