"""The updates of one request, for whoever waits for them: a thread or a coroutine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from types import TracebackType

from inference_pio.engine.updates import SequenceUpdate
from inference_pio.errors import EngineClosed


class RequestStream:
    """Iterate over it with `for` or `async for`; it ends when every answer of the request is finished.

    `cancel()`, leaving a `with` block, or dropping the last reference ends the request in the engine. Iteration
    raises `EngineClosed` if the engine closes first.
    """

    def __init__(self, request_id: str, mailbox: Mailbox, cancel: Callable[[], None]) -> None:
        self.request_id = request_id
        self._mailbox = mailbox
        # The engine holds the mailbox and not the stream, so that an abandoned stream is noticed.
        self.cancel = weakref.finalize(self, cancel)
        self.cancel.atexit = False

    def __iter__(self) -> RequestStream:
        return self

    def __next__(self) -> SequenceUpdate:
        update = self._mailbox.wait()
        if update is None:
            raise StopIteration
        return update

    def __aiter__(self) -> RequestStream:
        return self

    async def __anext__(self) -> SequenceUpdate:
        update = await self._mailbox.wait_async()
        if update is None:
            raise StopAsyncIteration
        return update

    def __enter__(self) -> RequestStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()


class Mailbox:
    """Updates on their way from the engine's thread to a stream's consumer."""

    def __init__(self, num_answers: int) -> None:
        self._changed = threading.Condition()
        self._updates: deque[SequenceUpdate] = deque()
        self._unfinished = num_answers
        self._closed: EngineClosed | None = None
        self._waiter: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None
        self._pid = os.getpid()

    @property
    def finished(self) -> bool:
        return self._unfinished == 0

    def put(self, update: SequenceUpdate) -> None:
        with self._changed:
            self._updates.append(update)
            self._unfinished -= update.finish_reason is not None
            self._wake()

    def close(self, error: EngineClosed) -> None:
        with self._changed:
            self._closed = error
            self._wake()

    def wait(self) -> SequenceUpdate | None:
        """The next update; None at the end."""
        self._check_process()
        with self._changed:
            while not self._ready():
                self._changed.wait()
            return self._take()

    async def wait_async(self) -> SequenceUpdate | None:
        self._check_process()
        while True:
            with self._changed:
                if self._ready():
                    return self._take()
                event = asyncio.Event()
                self._waiter = (asyncio.get_running_loop(), event)
            await event.wait()

    def _ready(self) -> bool:
        return bool(self._updates) or self._unfinished == 0 or self._closed is not None

    def _take(self) -> SequenceUpdate | None:
        if self._updates:
            return self._updates.popleft()
        if self._closed is not None and self._unfinished:
            raise self._closed
        return None

    def _wake(self) -> None:
        self._changed.notify_all()
        if self._waiter is not None:
            loop, event = self._waiter
            self._waiter = None
            # A loop that is closed has no consumer left to wake; the stream's finaliser cancels the request.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(event.set)

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise EngineClosed("the engine runs in the process that started it: make one in this process")
