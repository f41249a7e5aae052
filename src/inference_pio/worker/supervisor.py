"""One worker from the outside: started, watched, started again, and its requests taken along.

No input, output or clock of its own: what happens comes in through methods, what is to be done goes out through
`Hands`, and every method that decides by time is told it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from inference_pio.children.crossing import error_of
from inference_pio.children.frames import ProtocolError
from inference_pio.errors import GenerationError, InferencePIOError, PluginError, one_line
from inference_pio.security.confine import Lock, less_held
from inference_pio.worker.asked import Asked, Read
from inference_pio.worker.death import Death
from inference_pio.worker.flights import Flight, Flights
from inference_pio.worker.messages import (
    Abort,
    Answered,
    Close,
    Ended,
    Failed,
    FromWorker,
    Go,
    Hello,
    Load,
    Loaded,
    Pieces,
    Ping,
    Planned,
    Pong,
    Progress,
)
from inference_pio.worker.patience import Progress as EngineProgress
from inference_pio.worker.patience import Restarts, Word
from inference_pio.worker.poison import Poison
from inference_pio.worker.roles import Hands, Owner, State

_MOST_SHARED_CRASHES = 2
_MOST_COLUMNS = 200


class Supervisor:
    """
    Args:
        proved: locks that hold a child in the same place; a worker that says less of itself is ended.
    """

    def __init__(
        self, name: str, load: Load, hands: Hands, owner: Owner, proved: Sequence[Lock] = ()
    ) -> None:
        self._name, self._load, self._hands, self._owner = name, load, hands, owner
        self._proved = proved
        self.state = State.STARTING
        self.flights = Flights()
        self._restarts, self._engine, self._word = Restarts(), EngineProgress(), Word()
        self._poison = Poison()
        self._vocab_size = 0
        self._wanted = False  # whether a plan is followed by Go: not before the owner says so once
        self._suspects: list[int] = []
        self._asked = Asked(owner.refused)
        self._pings = 0
        self._broken: InferencePIOError | None = None
        self._heard: Mapping[type, Callable[[Any], None]] = {
            Hello: self._hello,
            Progress: owner.progress,
            Planned: self._planned,
            Answered: self._answered,
            Ended: self._ended,
            Failed: self._failed,
        }

    # What the owner asks -----------------------------------------------------------------------------------------

    def start(self) -> None:
        if self.state is State.CLOSED:
            return
        self.state = State.STARTING
        self._word.nothing()
        self._hands.spawn()

    def go(self) -> None:
        """Load what was planned, now and after every crash. Twice is fine."""
        if self._wanted:
            return
        self._wanted = True
        if self.state is State.PLANNED:
            self._word.nothing()
            self._let_it_load()

    def submit(self, flight: Flight, now: float) -> None:
        """A request; it waits while there is no worker. One that ended a worker alone fails at once.

        Raises:
            PluginError: there will be none any more.
        """
        if self._broken is not None:
            raise self._broken
        refusal = self._poison.refusal(flight.asked, now)
        if refusal is not None:
            flight.receiver.failed(refusal)
            return
        self.flights.add(flight)
        self._send_all()

    def abort(self, number: int) -> None:
        flight = self.flights.remove(number)
        if flight is None:
            return
        if flight.sent and self.state is State.READY:
            self._hands.say(Abort(number))
        self._settle(number)

    def change(self, load: Load) -> None:
        """Another worker, for the same model run otherwise; requests that come meanwhile wait for it.

        Raises:
            PluginError: there are requests, whose answers might become others, or there is no worker.
        """
        if self.state is not State.READY:
            raise PluginError(f"{self._name}: its worker is {self.state.value}")
        if busy := len(self.flights):
            raise PluginError(f"{self._name} is busy with {busy} requests: optimise it when they have ended")
        self._load, self.state = load, State.CHANGING
        self._hands.say(Close())

    def ask(self, number: int, say: Callable[[], None], read: Read) -> None:
        """A question; while a worker is started again it waits for that. `read` looks at what is answered.

        Raises:
            PluginError: there is none, or will be none.
            ProtocolError: it is too long.
        """
        if self._broken is not None:
            raise self._broken
        there = self.state in (State.READY, State.PLANNED)
        if not there and (self.state is State.CLOSED or not self._wanted):
            raise PluginError(f"{self._name}: its worker is {self.state.value}")
        self._asked.add(number, say, read, now=there)

    def give_up_question(self, number: int) -> None:
        """Nobody waits for its answer any more, if it has none yet."""
        self._asked.give_up(number)

    def give_up(self, error: InferencePIOError) -> None:
        """There will be no worker any more."""
        self._break(error)

    def close(self) -> None:
        """Whoever waits for anything is told now: there may be no worker whose end would tell them."""
        self.state = State.CLOSED
        closed = PluginError(f"{self._name}: the model was closed")
        self._owner.refused(None, closed)
        self._asked.end_all(closed)
        self.flights.fail_all(
            lambda flight: GenerationError(f"request {flight.number}: the model was closed")
        )

    # What happens ------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Ask for progress; end an engine that makes none, and a start that says nothing."""
        if self.state is State.STARTING or (self.state is State.PLANNED and self._wanted):
            quiet = self._word.missing(now)
            if quiet is not None:
                self._hands.kill(f"no word in {quiet:.0f} s while it was to start")
            return
        if self.state is not State.READY:
            return
        silent = self._engine.stalled(now)
        if silent is not None and self.flights.sent():
            self._hands.kill(f"no step in {silent:.0f} s, with work to do")
            return
        self._pings += 1
        self._hands.say(Ping(self._pings))

    def take(self, pieces: Pieces) -> None:
        """What is heard most, in as few steps as it takes: between two tokens nothing of this lies in a cache.

        Raises:
            ProtocolError: as in `hear`.
        """
        for piece in pieces.of:
            flight = self._flight(piece.request)
            if flight is not None:  # else it was given up while its tokens were on their way
                flight.take(piece, self._vocab_size)

    def hear(self, message: FromWorker, now: float) -> None:
        """All but Pieces.

        Raises:
            ProtocolError: a worker does not say that, or not now. It is to be ended.
        """
        if self.state is State.CLOSED:  # nobody waits for it any more
            return
        self._word.came(now)
        if isinstance(message, Pong):
            self._engine.seen(message, now)
        elif isinstance(message, Loaded):
            self._expect(State.PLANNED, message)
            self._loaded(message, now)
        else:
            self._heard[type(message)](message)

    def lost(self, death: Death, now: float) -> None:
        """The process has ended."""
        if self.state is State.CLOSED:
            return
        ended = PluginError(f"{self._name}: its worker ended: {death.cause}")
        if self.state is State.CHANGING:
            self.start()
            return
        if not self._wanted or self._broken is not None:
            self._break(self._broken or ended)
            return
        self._asked.lost(ended)
        if death.blames_requests:
            self._blame(death, now)
        for flight in self.flights.sent():
            flight.sent = False
        wait = self._restarts.after_crash(now)
        self._owner.crashed(death, wait)
        if wait is None:
            self._break(
                PluginError(f"{self._name} is broken: its worker ended too often, at last: {death.cause}")
            )
            return
        self.state = State.WAITING
        self._hands.start_in(wait)

    # -------------------------------------------------------------------------------------------------------------

    def _hello(self, message: Hello) -> None:
        self._expect(State.STARTING, message)
        if less := less_held(self._proved, message.locks):
            self._hands.kill(f"it is not locked in as was proved here: {one_line(less[:_MOST_COLUMNS])}")
            return  # what is said to it now is of no use, and what it says is not heard
        self._hands.say(self._load)

    def _planned(self, message: Planned) -> None:
        self._expect(State.STARTING, message)
        self.state = State.PLANNED
        self._owner.planned(message)
        if self._wanted:
            self._let_it_load()

    def _let_it_load(self) -> None:
        self._hands.tighten()
        self._hands.say(Go())

    def _answered(self, message: Answered) -> None:
        told = self._asked.answered(message.number, message.value, self._vocab_size)
        self._owner.answered(message.number, told)

    def _ended(self, message: Ended) -> None:
        flight = self._flight(message.request)
        if flight is not None:
            flight.end(message.metrics)
            self.flights.remove(message.request)
            self._settle(message.request)

    def _loaded(self, message: Loaded, now: float) -> None:
        self.state, self._vocab_size = State.READY, message.vocab_size
        self._engine.start(now)
        self._owner.loaded(message)
        self._asked.put_all()
        self._send_all()

    def _flight(self, number: int) -> Flight | None:
        """None for one that was given up while its tokens were on their way."""
        flight = self.flights.get(number)
        if flight is not None and not flight.sent:
            raise ProtocolError(f"word of request {number}, which it has not been given")
        return flight

    def _failed(self, message: Failed) -> None:
        error = error_of(message.error, message.text)
        if message.request is not None:
            flight = self.flights.remove(message.request)
            if flight is not None:
                flight.receiver.failed(error)
                self._settle(message.request)
        elif message.number is not None:
            self._asked.refused(message.number)
            self._owner.refused(message.number, error)
        else:
            self._break(error)

    def _expect(self, state: State, message: FromWorker) -> None:
        if self.state is not state:
            raise ProtocolError(f"{type(message).__name__} while it is {self.state.value}")

    def _blame(self, death: Death, now: float) -> None:
        """A request that was alone is to blame; those that shared two crashes are each tried alone."""
        had = self.flights.sent()
        if len(had) == 1 and (had[0].blamed or had[0].number in self._suspects):
            culprit = had[0]
            self._poison.found(culprit.asked, now)
            self.flights.remove(culprit.number)
            self._settle(culprit.number, send=False)
            culprit.receiver.failed(
                GenerationError(
                    f"request {culprit.number} ended its worker each time, alone at last: {death.cause}"
                )
            )
            return
        for flight in had:
            flight.blamed += 1
            if flight.blamed >= _MOST_SHARED_CRASHES and flight.number not in self._suspects:
                self._suspects.append(flight.number)

    def _settle(self, number: int, *, send: bool = True) -> None:
        """A request is over: the next suspect has its turn, or all others."""
        if number in self._suspects:
            self._suspects.remove(number)
            if send:
                self._send_all()

    def _send_all(self) -> None:
        """What waits and may run: everything, or while there are suspects one of them alone."""
        if self.state is not State.READY:
            return
        if self._suspects:
            first = self.flights.get(self._suspects[0])
            if first is not None and not self.flights.sent():
                self._send(first)
            return
        for flight in self.flights.waiting():
            self._send(flight)

    def _send(self, flight: Flight) -> None:
        flight.sent = True
        self._hands.say(flight.as_sent())

    def _break(self, error: InferencePIOError) -> None:
        self.state, self._broken = State.BROKEN, error
        self._owner.refused(None, error)
        self._asked.end_all(error)
        self.flights.fail_all(lambda _: error)
