"""A worker that is a table of tokens, and the world around a supervisor, without processes or a clock."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from inference_pio.errors import InferencePIOError
from inference_pio.outputs import RequestMetrics
from inference_pio.security.confine import Lock
from inference_pio.worker.death import Death
from inference_pio.worker.flights import Flight
from inference_pio.worker.messages import (
    Abort,
    Ended,
    FromParent,
    FromWorker,
    Generate,
    Go,
    Hello,
    Load,
    Loaded,
    Piece,
    Pieces,
    Ping,
    Planned,
    Pong,
)
from inference_pio.worker.supervisor import Supervisor

VOCAB = 1000
SEGV = Death(-11)
KILLED = Death(-9)


def token(seed: int, index: int, position: int) -> int:
    """What any worker draws there."""
    return int.from_bytes(hashlib.sha256(f"{seed} {index} {position}".encode()).digest()[:4]) % VOCAB


def answer(seed: int, index: int, length: int) -> list[int]:
    return [token(seed, index, position) for position in range(length)]


@dataclass
class Caller:
    """A `Receiver` that remembers; nothing may follow an end."""

    answers: list[list[int]]
    ends: int = 0
    error: InferencePIOError | None = None

    def piece(self, piece: Piece) -> None:
        assert not self.over
        self.answers[piece.index] += piece.token_ids

    def ended(self, metrics: RequestMetrics) -> None:  # noqa: ARG002 - the interface's
        assert not self.over
        self.ends += 1

    def failed(self, error: InferencePIOError) -> None:
        assert not self.over
        self.error = error

    @property
    def over(self) -> bool:
        return bool(self.ends or self.error)


@dataclass
class World:
    """Hands, owner and worker of one supervisor. `now` moves when a test moves it."""

    now: float = 0.0
    alive: bool = False
    spawned: int = 0
    due: float | None = None
    proved: tuple[Lock, ...] = ()
    verdict: str = ""
    sent: list[FromParent] = field(default_factory=list)
    running: dict[int, Generate] = field(default_factory=dict)
    positions: dict[tuple[int, int], int] = field(default_factory=dict)
    errors: list[InferencePIOError] = field(default_factory=list)
    deaths: list[tuple[Death, float | None]] = field(default_factory=list)
    steps: int = 0
    under_way: int = 0

    def __post_init__(self) -> None:
        self.supervisor = Supervisor(
            "m", Load("m", None, {}, {}, None, False, None, None), self, self, self.proved
        )

    # Hands -------------------------------------------------------------------------------------------------------

    def spawn(self) -> None:
        assert not self.alive
        self.alive, self.due = True, None
        self.spawned += 1

    def say(self, message: FromParent) -> None:
        assert self.alive
        self.sent.append(message)
        if isinstance(message, Generate):
            assert message.request not in self.running
            self.running[message.request] = message
            done = message.done or [[]] * message.params["n"]
            for index, told in enumerate(done):
                if told is not None:
                    self.positions[message.request, index] = len(told)
        elif isinstance(message, Abort):
            self._forget(message.request)

    def kill(self, verdict: str) -> None:
        self.verdict = self.verdict or verdict

    def tighten(self) -> None: ...

    def start_in(self, seconds: float) -> None:
        self.due = self.now + seconds

    # Owner -------------------------------------------------------------------------------------------------------

    def progress(self, message: object) -> None: ...

    def planned(self, message: Planned) -> None: ...

    def loaded(self, message: Loaded) -> None: ...

    def answered(self, number: int, value: object) -> None: ...

    def refused(self, number: int | None, error: InferencePIOError) -> None:  # noqa: ARG002 - the interface's
        self.errors.append(error)

    def crashed(self, death: Death, again_in: float | None) -> None:
        self.deaths.append((death, again_in))

    # The worker --------------------------------------------------------------------------------------------------

    def hear(self, message: FromWorker) -> None:
        if isinstance(message, Pieces):
            self.supervisor.take(message)
        else:
            self.supervisor.hear(message, self.now)

    def start(self) -> None:
        """Up to a worker that is ready."""
        self.supervisor.start()
        self.supervisor.go()
        self.come_up()

    def come_up(self) -> None:
        self.hear(Hello(()))
        self.hear(Planned({}))
        assert isinstance(self.sent[-1], Go)
        self.hear(Loaded(VOCAB, 100, False))

    def step(self, only: int | None = None) -> None:
        """One token for every answer that is open."""
        self.steps += 1
        pieces, over = [], []
        for number, asked in self.running.items():
            if only is not None and number != only:
                continue
            for index in range(asked.params["n"]):
                if (number, index) in self.positions:
                    pieces.append(self._token(asked, index))
            if not any(key[0] == number for key in self.positions):
                over.append(number)
        if pieces:
            self.hear(Pieces(pieces))
        for number in over:
            del self.running[number]
            self.hear(Ended(number, RequestMetrics(0.0, 0.0, 0)))

    def die(self, death: Death) -> None:
        self.alive = False
        self.running.clear()
        self.positions.clear()
        self.supervisor.lost(death, self.now)

    def again(self) -> None:
        """What was put off comes due, and the worker comes up."""
        assert self.due is not None
        self.now = max(self.now, self.due)
        self.supervisor.start()
        self.come_up()

    def pong(self, *, busy: bool) -> None:
        pings = [message for message in self.sent if isinstance(message, Ping)]
        self.hear(Pong(pings[-1].number, self.steps, self.steps, self.under_way, busy))

    def _token(self, asked: Generate, index: int) -> Piece:
        number = asked.request
        position = self.positions[number, index]
        last = position + 1 == asked.params["max_tokens"]
        if last:
            del self.positions[number, index]
        else:
            self.positions[number, index] += 1
        told = [token(asked.params["seed"], index, position)]
        return Piece(number, index, position, told, "", "length" if last else None)

    def _forget(self, number: int) -> None:
        self.running.pop(number, None)
        for key in [key for key in self.positions if key[0] == number]:
            del self.positions[key]


def request(number: int, *, answers: int = 1, length: int = 5) -> tuple[Flight, Caller]:
    caller = Caller([[] for _ in range(answers)])
    params = {"n": answers, "max_tokens": length, "seed": 100 + number}
    return Flight(Generate(number, params, token_ids=[1, number]), caller, length), caller


def expected(number: int, *, answers: int = 1, length: int = 5) -> list[list[int]]:
    return [answer(100 + number, index, length) for index in range(answers)]
