"""Questions to a worker: they wait while there is none, and die with the second that they were put to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from inference_pio.children.frames import ProtocolError
from inference_pio.errors import InferencePIOError

_MOST_WORKERS = 2


Read = Callable[[Any, int], object]
"""Makes of what a worker said what it stands for, by the size of its vocabulary (ProtocolError: it is no answer)."""


@dataclass
class _Question:
    """`wanted`: somebody waits for its answer."""

    say: Callable[[], None]
    read: Read
    put: bool = False
    workers: int = 0
    wanted: bool = True


class Asked:
    """All of one model that have no answer. `refuse` is told of each that gets none."""

    def __init__(self, refuse: Callable[[int, InferencePIOError], None]) -> None:
        self._refuse = refuse
        self._open: dict[int, _Question] = {}

    def add(self, number: int, say: Callable[[], None], read: Read, *, now: bool) -> None:
        """Put it `now`, or when there is a worker.

        Raises:
            ProtocolError: it cannot be said.
        """
        question = _Question(say, read)
        if now:
            self._put(question)
        self._open[number] = question

    def put_all(self) -> None:
        """There is a worker."""
        for number, question in [*self._open.items()]:
            if not question.put:
                try:
                    self._put(question)
                except ProtocolError as error:
                    self._end(number, error)

    def lost(self, error: InferencePIOError) -> None:
        """The worker has ended, and there may be another one."""
        for number, question in [*self._open.items()]:
            question.put = False
            if question.workers >= _MOST_WORKERS or not question.wanted:
                self._end(number, error)

    def end_all(self, error: InferencePIOError) -> None:
        for number in [*self._open]:
            self._end(number, error)

    def give_up(self, number: int) -> None:
        """Nobody waits for it any more; one that was put may be answered all the same."""
        question = self._open.get(number)
        if question is not None and question.put:
            question.wanted = False
        else:
            self._open.pop(number, None)

    def answered(self, number: int, value: object, vocab_size: int) -> object:
        """What the answer is; one that is none leaves the question open, for the next worker.

        Raises:
            ProtocolError: it was not put, or that is no answer to it.
        """
        self._require_put(number)
        told = self._open[number].read(value, vocab_size)
        del self._open[number]
        return told

    def refused(self, number: int) -> None:
        """
        Raises:
            ProtocolError: it was not put.
        """
        self._require_put(number)
        del self._open[number]

    def _require_put(self, number: int) -> None:
        if number not in self._open or not self._open[number].put:
            raise ProtocolError(f"an answer to question {number}, which was not put")

    def _put(self, question: _Question) -> None:
        question.say()
        question.put = True
        question.workers += 1

    def _end(self, number: int, error: InferencePIOError) -> None:
        del self._open[number]
        self._refuse(number, error)
