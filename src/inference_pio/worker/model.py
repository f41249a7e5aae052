"""A model in a worker, as a coroutine sees it: `plan`, `load`, then requests and questions, and `close`."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any

from inference_pio.errors import InferencePIOError, ModelFileError, one_line
from inference_pio.security.confine import Lock
from inference_pio.worker.answers import checked_answer
from inference_pio.worker.booting import Cell
from inference_pio.worker.death import Death
from inference_pio.worker.flights import Flight, Receiver
from inference_pio.worker.holding import Holding
from inference_pio.worker.messages import (
    Ask,
    Close,
    FromParent,
    FromWorker,
    Generate,
    Load,
    Loaded,
    Picture,
    Pieces,
    Planned,
    Progress,
)
from inference_pio.worker.pictures import in_pieces
from inference_pio.worker.process import Process
from inference_pio.worker.roles import State
from inference_pio.worker.supervisor import Supervisor

_log = logging.getLogger("inference_pio")
_TICK_SECONDS = 1.0
_MOST_COLUMNS = 80
_PATIENCE_AT_CLOSE = 5.0


class WorkerModel:
    """All methods belong to the event loop it was made on.

    Args:
        cell: where it lives, and what it may use there.
        progress: called with bytes done, bytes in total and what is being done.
        proved: locks that hold a child in the same place; a worker that says less of itself is ended.
    """

    def __init__(
        self,
        name: str,
        cell: Cell,
        load: Load,
        progress: Callable[[int, int, str], None] | None = None,
        proved: Sequence[Lock] = (),
    ) -> None:
        self.name = one_line(name)
        self._cell, self._progress = cell, progress
        self._loop = asyncio.get_running_loop()
        self._supervisor = Supervisor(self.name, load, self, self, proved)
        self._process: Process | None = None
        self._planned: asyncio.Future[Planned] = self._loop.create_future()
        self._loaded: asyncio.Future[Loaded] = self._loop.create_future()
        self._gone = asyncio.Event()
        self._questions: dict[int, asyncio.Future[object]] = {}
        self._numbers = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._ticker: asyncio.TimerHandle | None = None
        self._holding: Holding | None = None
        self._contents: dict[str, tuple[int, ...]] = {}
        self.restarts = 0

    @property
    def state(self) -> State:
        return self._supervisor.state

    @property
    def holding(self) -> Holding | None:
        """What holds it to its limits; None while there is no process."""
        return self._holding

    @property
    def pid(self) -> int | None:
        """None while there is no process."""
        return (self._process.pid or None) if self._process is not None else None

    async def plan(self) -> Planned:
        """Start the worker and let it plan. Twice is fine: who waits may be cancelled, and another one wait.

        Raises:
            InferencePIOError: what the worker raised, or why there is none.
        """
        if self._ticker is None:
            self._supervisor.start()
            self._tick()
        return await asyncio.shield(self._planned)

    async def load(self) -> Loaded:
        """
        Raises:
            InferencePIOError: as for `plan`.
        """
        self._supervisor.go()
        return await asyncio.shield(self._loaded)

    async def change(self, cell: Cell, load: Load) -> tuple[Planned, Loaded]:
        """Run the same model otherwise, in another process.

        Raises:
            PluginError: it has requests, or no worker.
            InferencePIOError: as for `plan`; then there is no worker any more.
        """
        self._supervisor.change(load)
        self._cell, process = cell, self._process
        self._planned, self._loaded = self._loop.create_future(), self._loop.create_future()
        assert process is not None
        self._loop.call_later(
            _PATIENCE_AT_CLOSE, process.kill, "it did not close"
        )  # this one, if it is there still
        return await asyncio.shield(self._planned), await asyncio.shield(self._loaded)

    def submit(self, asked: Generate, receiver: Receiver, most_tokens: int) -> int:
        """A request; its number. One without a seed is given one, so that any worker draws the same numbers."""
        number = next(self._numbers)
        seed = asked.params.get("seed")
        params = {**asked.params, "seed": secrets.randbits(63) if seed is None else seed}
        named = Generate(**{**_fields(asked), "request": number, "params": params})
        self._supervisor.submit(Flight(named, receiver, most_tokens), monotonic())
        return number

    def abort(self, number: int) -> None:
        self._supervisor.abort(number)

    async def ask(self, about: Any, images: Sequence[Picture] = (), **given: Any) -> Any:
        """
        Raises:
            InferencePIOError: what the worker raised, or that it has gone.
        """
        number = next(self._numbers)
        answer = self._questions[number] = self._loop.create_future()
        try:
            self._supervisor.ask(
                number,
                lambda: self.say(Ask(number, about, given, list(images))),
                lambda value, vocab_size: checked_answer(about, given, value, vocab_size),
            )
            return await answer
        finally:
            self._questions.pop(number, None)
            self._supervisor.give_up_question(number)

    async def close(self) -> None:
        """End the worker: asked first, killed where it does not go. Twice is fine."""
        if self._ticker is not None:
            self._ticker.cancel()
        self._supervisor.close()
        if self._process is None:
            return
        self.say(Close())
        with suppress(TimeoutError):
            await asyncio.wait_for(self._gone.wait(), _PATIENCE_AT_CLOSE)
        if not self._gone.is_set():
            self.kill("it did not close")
            await self._gone.wait()

    # What the supervisor does ------------------------------------------------------------------------------------

    def spawn(self) -> None:
        task = self._loop.create_task(self._start())
        self._tasks.add(task)
        task.add_done_callback(self._begun)

    def say(self, message: FromParent) -> None:
        if self._process is not None:
            for piece in in_pieces(message):
                self._process.say(piece)

    def kill(self, verdict: str) -> None:
        if self._process is not None:
            self._process.kill(verdict)

    def tighten(self) -> None:
        most = self._cell.most_bytes
        data = self._cell.data_bytes(most)
        if self._process is not None and data is not None:
            self._process.limit_data(data)
        if self._holding is not None:
            self._holding.tighten(most)

    def start_in(self, seconds: float) -> None:
        self._loop.call_later(seconds, self._supervisor.start)

    # What it is told ---------------------------------------------------------------------------------------------

    def progress(self, message: Progress) -> None:
        if self._progress is not None:
            self._progress(
                message.done, message.total, one_line(message.what[:_MOST_COLUMNS])[:_MOST_COLUMNS]
            )

    def planned(self, message: Planned) -> None:
        if not self._planned.done():
            self._planned.set_result(message)

    def loaded(self, message: Loaded) -> None:
        if not self._loaded.done():
            self._loaded.set_result(message)

    def answered(self, number: int, value: object) -> None:
        answer = self._questions.get(number)
        if answer is not None and not answer.done():  # else who asked was cancelled
            answer.set_result(value)

    def refused(self, number: int | None, error: InferencePIOError) -> None:
        if number is not None:
            waiting: list[asyncio.Future[Any] | None] = [self._questions.get(number)]
        else:
            waiting = [self._planned, self._loaded]
        for future in waiting:
            if future is not None and not future.done():
                future.set_exception(error)
                future.exception()  # whether or not anybody waits for it

    def crashed(self, death: Death, again_in: float | None) -> None:
        self.restarts += 1
        then = "no more" if again_in is None else "now" if not again_in else f"in {again_in:g} s"
        _log.warning("%s: its worker ended: %s; started again: %s", self.name, death.cause, then)

    # -------------------------------------------------------------------------------------------------------------

    def _begun(self, task: asyncio.Task[None]) -> None:
        """A start that failed otherwise than a system refuses is a defect: whoever waits is told, and not left."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            why = str(error) if isinstance(error, InferencePIOError) else f"{type(error).__name__}: {error}"
            self._died(Death(-1, f"no process can be started: {why}"))

    async def _start(self) -> None:
        if self.state is State.CLOSED:
            return
        try:
            self._require_the_same()
        except InferencePIOError as error:
            self._supervisor.give_up(error)
            return
        self._gone.clear()
        boot = self._cell.boot()
        self._process = process = Process(self._heard, self._died)
        try:
            await process.start(boot, self._cell.environment(), self._hold)
        finally:
            for descriptor in boot.files.values():
                os.close(descriptor)

    def _require_the_same(self) -> None:
        """Answers go on in the middle: another worker has to have the model that the first one had.

        Raises:
            ModelFileError: a file of it is another one.
        """
        there = self._cell.contents()
        self._contents = self._contents or there
        for file, known in self._contents.items():
            if there.get(file) != known:
                raise ModelFileError(
                    file,
                    "this model file changed on the disk while it was used",
                    hint="load the model again",
                )

    def _hold(self, pid: int) -> None:
        process = self._process
        assert process is not None
        self._holding = self._cell.hold(pid, process.kill)
        self._look(self._holding)

    def _look(self, holding: Holding) -> None:
        if self._holding is holding:
            holding.watch.look()
            self._loop.call_later(holding.watch.interval, self._look, holding)

    def _heard(self, message: FromWorker) -> None:
        if isinstance(message, Pieces):
            self._supervisor.take(message)
        else:
            self._supervisor.hear(message, monotonic())

    def _died(self, death: Death) -> None:
        self._process = None
        if self._holding is not None:
            death = self._holding.explained(death)
            self._holding.close()
            self._holding = None
        if self._cell.scratch is not None:
            self._cell.scratch.wipe()
        self._gone.set()
        self._supervisor.lost(death, monotonic())

    def _tick(self) -> None:
        if self._process is not None:
            self._process.hear()
        self._supervisor.tick(monotonic())
        self._ticker = self._loop.call_later(_TICK_SECONDS, self._tick)


def _fields(message: Generate) -> dict[str, Any]:
    return {name: getattr(message, name) for name in message.__struct_fields__}
