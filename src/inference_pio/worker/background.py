"""The one event loop on which this process watches its workers, in a thread of its own."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Background:
    """Starts when it is first used; one per process, and a new one after a fork."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None or self._pid != os.getpid():
                self._loop, self._pid = asyncio.new_event_loop(), os.getpid()
                threading.Thread(
                    target=self._loop.run_forever, name="inference-pio-workers", daemon=True
                ).start()
            return self._loop

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run it there, and wait for it here."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()


BACKGROUND = Background()
