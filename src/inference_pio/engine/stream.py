"""The updates of one request, for whoever waits for them: a thread or a coroutine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from time import perf_counter
from types import TracebackType

from inference_pio.engine.updates import SequenceUpdate, joined
from inference_pio.errors import EngineClosed


def as_they_come(
    streams: Sequence[RequestStream], changed: threading.Condition
) -> Iterator[tuple[int, SequenceUpdate]]:
    """Updates of several streams, each with its stream's number, in the order in which they arrive.

    The streams were all submitted with `changed`. A stream that is cancelled meanwhile ends like any other.
    """
    open_streams = dict(enumerate(streams))
    while open_streams:
        with changed:
            while not (ready := [i for i, stream in open_streams.items() if stream.ready]):
                changed.wait()
        for i in ready:
            for update in open_streams[i].take_ready():
                yield i, update
            if open_streams[i].exhausted:
                del open_streams[i]


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

    @property
    def ready(self) -> bool:
        """Whether `next` would not wait."""
        return self._mailbox.ready

    @property
    def exhausted(self) -> bool:
        """Whether everything has been taken."""
        return self._mailbox.exhausted

    @property
    def first_update_at(self) -> float | None:
        """`time.perf_counter()` when the engine gave its first update, whenever that is read."""
        return self._mailbox.first_at

    @property
    def last_update_at(self) -> float | None:
        """`time.perf_counter()` when the engine gave its latest update."""
        return self._mailbox.last_at

    def take_ready(self) -> Iterator[SequenceUpdate]:
        """What has arrived, without waiting for more; joined where the mailbox keeps everything to the end."""
        arrived = []
        while self.ready and (update := self._mailbox.wait()) is not None:
            arrived.append(update)
        yield from joined(arrived) if self._mailbox.whole else arrived

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

    def __init__(
        self, num_answers: int, changed: threading.Condition | None = None, *, whole: bool = False
    ) -> None:
        """`changed` is what waiting consumers sleep on; several mailboxes may share one. With `whole` they sleep until
        every answer has ended: waking for each token takes processors from the engine.
        """
        self.whole = whole
        self._changed = changed or threading.Condition()
        self.first_at: float | None = None
        self.last_at: float | None = None
        self._updates: deque[SequenceUpdate] = deque()
        self._unfinished = num_answers
        self._closed: EngineClosed | None = None
        self._waiter: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None
        self._pid = os.getpid()

    @property
    def finished(self) -> bool:
        return self._unfinished == 0

    @property
    def ready(self) -> bool:
        ended = self._unfinished == 0 or self._closed is not None
        return ended or (bool(self._updates) and not self.whole)

    @property
    def exhausted(self) -> bool:
        return self._unfinished == 0 and not self._updates

    def put(self, update: SequenceUpdate) -> None:
        with self._changed:
            self.last_at = perf_counter()
            self.first_at = self.first_at or self.last_at
            self._updates.append(update)
            self._unfinished -= update.finish_reason is not None
            if self.ready:
                self._wake()

    def close(self, error: EngineClosed) -> None:
        with self._changed:
            self._closed = error
            self._wake()

    def wait(self) -> SequenceUpdate | None:
        """The next update; None at the end."""
        self._check_process()
        with self._changed:
            while not self.ready:
                self._changed.wait()
            return self._take()

    async def wait_async(self) -> SequenceUpdate | None:
        self._check_process()
        while True:
            with self._changed:
                if self.ready:
                    return self._take()
                event = asyncio.Event()
                self._waiter = (asyncio.get_running_loop(), event)
            await event.wait()

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
