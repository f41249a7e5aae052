"""Who a supervisor deals with: its hands, its owner; and in which state it can be."""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from inference_pio.errors import InferencePIOError
from inference_pio.worker.death import Death
from inference_pio.worker.messages import FromParent, Loaded, Planned, Progress


class State(Enum):
    STARTING = "starting"
    PLANNED = "planned"
    READY = "ready"
    WAITING = "waiting to start again"
    CHANGING = "about to run it otherwise"
    BROKEN = "broken"
    CLOSED = "closed"


class Hands(Protocol):
    """What a supervisor does to the world."""

    def spawn(self) -> None: ...

    def say(self, message: FromParent) -> None: ...

    def kill(self, verdict: str) -> None: ...

    def tighten(self) -> None:
        """From now on its limits hold: what it has planned fits them."""

    def start_in(self, seconds: float) -> None:
        """Call `Supervisor.start` then."""


class Owner(Protocol):
    """Who is told."""

    def progress(self, message: Progress) -> None: ...

    def planned(self, message: Planned) -> None: ...

    def loaded(self, message: Loaded) -> None: ...

    def answered(self, number: int, value: object) -> None:
        """Of a question; it may have been given up."""

    def refused(self, number: int | None, error: InferencePIOError) -> None:
        """A question's, which may have been given up, or (None) that the model cannot be loaded."""

    def crashed(self, death: Death, again_in: float | None) -> None: ...
