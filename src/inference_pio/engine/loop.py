"""One background thread that runs the engine for every other thread and for asyncio."""

from __future__ import annotations

import atexit
import itertools
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from time import perf_counter

from inference_pio.engine.core import EngineCore
from inference_pio.engine.script import Script
from inference_pio.engine.sequence import Known
from inference_pio.engine.stream import Mailbox, RequestStream
from inference_pio.engine.updates import EngineStats
from inference_pio.errors import EngineClosed, UsageError
from inference_pio.plugin.media import PromptMedia
from inference_pio.sampling_params import SamplingParams


class EngineLoop:
    """Steps an `EngineCore` while it has work and sleeps while it has none.

    Only its own thread touches the core; every other thread leaves commands. All methods may be called from any
    thread of the process that made the loop.
    """

    def __init__(self, core: EngineCore) -> None:
        self._core = core
        self._changed = threading.Condition()
        self._commands: deque[Callable[[], object]] = deque()
        self._mailboxes: dict[str, Mailbox] = {}
        self._names = itertools.count()
        self._closing = False
        self._after_step: Callable[[], None] | None = None
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._run, name="inference-pio-engine", daemon=True)
        self._thread.start()
        # A daemon thread that is inside the model when the interpreter goes away would crash the process.
        atexit.register(self.close)

    def submit(
        self,
        prompt_token_ids: Sequence[int],
        params: SamplingParams,
        request_id: str | None = None,
        *,
        media: PromptMedia | None = None,
        changed: threading.Condition | None = None,
        whole: bool = False,
        script: Script | None = None,
        arrived: float | None = None,
        done: Known = (),
    ) -> RequestStream:
        """Queue a request; the stream of its updates. Streams that share `changed` can be read `as_they_come`.

        `script` is the answer, where it is given (`engine/script.py`). With `whole` there is nothing to read before
        every answer has ended, and then one update for each. `arrived` is when the request
        came, by `perf_counter` (now). `done` are tokens that answers have already: nothing is told of those.

        Raises:
            SamplingError, ContextLengthError: the request cannot be served.
            UsageError: a request of this name is running.
            EngineClosed: the loop is closed, or belongs to another process.
        """
        self._check_open()
        prompt = self._core.check_request(prompt_token_ids, params)
        came = perf_counter() if arrived is None else arrived
        mailbox = Mailbox(params.n - list(done).count(None), changed, whole=whole)
        with self._changed:
            self._check_open()
            name = request_id if request_id is not None else f"request-{next(self._names)}"
            if name in self._mailboxes:
                raise UsageError(f"request {name} is running already: give each request a name of its own")
            self._mailboxes[name] = mailbox
            self._command(lambda: self._core.add_request(name, prompt, params, media, script, came, done))
        return RequestStream(name, mailbox, lambda: self._cancel(name, mailbox))

    def after_step(self, told: Callable[[], None]) -> None:
        """Have `told` called by the engine's thread when the updates of a step are there to be read, and when no more
        come. The next step waits for it.
        """
        self._after_step = told

    def stats(self) -> EngineStats:
        """Figures of the core, as of its last step."""
        return self._core.stats()

    def reset_prefix_cache(self) -> None:
        """Forget all cached prefixes before the next step."""
        with self._changed:
            self._check_open()
            self._command(self._core.reset_prefix_cache)

    def close(self) -> None:
        """Stop after the current step; requests that are not finished fail with `EngineClosed`. Twice is fine."""
        if os.getpid() != self._pid:
            return
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()
        self._core.close()
        atexit.unregister(self.close)

    def _run(self) -> None:
        try:
            while self._wait():
                for update in self._core.step():
                    mailbox = self._mailboxes[update.request_id]
                    mailbox.put(update)
                    if mailbox.finished:
                        del self._mailboxes[update.request_id]
                if self._after_step is not None:
                    self._after_step()
        finally:
            # Reached by an exception as well: a defect in the engine ends it, and nobody waits for ever.
            self._fail_all()

    def _wait(self) -> bool:
        """Carry out commands, or sleep until there is something to do; False when it is time to end."""
        with self._changed:
            while not (self._commands or self._core.has_work or self._closing):
                self._changed.wait()
            while self._commands and not self._closing:
                self._commands.popleft()()
            return not self._closing

    def _fail_all(self) -> None:
        with self._changed:
            self._closing = True
            mailboxes, self._mailboxes = self._mailboxes, {}
        # Outside the lock: whoever holds a mailbox may be asking for the lock, to cancel an abandoned stream.
        for name, mailbox in mailboxes.items():
            mailbox.close(EngineClosed(f"request {name}: the engine was closed before it was finished"))
            self._core.abort(name)
        if self._after_step is not None:
            self._after_step()

    def _cancel(self, name: str, mailbox: Mailbox) -> None:
        if os.getpid() != self._pid:
            return
        with self._changed:
            # The name may belong to a later request by now.
            if self._mailboxes.get(name) is mailbox:
                self._command(lambda: self._core.abort(name))

    def _command(self, command: Callable[[], object]) -> None:
        self._commands.append(command)
        self._changed.notify_all()

    def _check_open(self) -> None:
        if os.getpid() != self._pid:
            raise EngineClosed("the engine runs in the process that started it: make one in this process")
        if self._closing:
            raise EngineClosed("the engine is closed: make a new one")
