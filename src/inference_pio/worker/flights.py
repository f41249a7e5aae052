"""Requests in flight: what was asked, what has come, and whether a worker's word about them can be true."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from inference_pio.children.frames import ProtocolError
from inference_pio.errors import InferencePIOError
from inference_pio.outputs import RequestMetrics, TokenLogprobs
from inference_pio.worker.messages import Generate, Piece


class Receiver(Protocol):
    """Who waits for the answers of one request."""

    def piece(self, piece: Piece) -> None: ...

    def ended(self, metrics: RequestMetrics) -> None: ...

    def failed(self, error: InferencePIOError) -> None: ...


@dataclass(eq=False)
class Flight:
    """One request.

    asked    as it was sent first; its seed is named, so that another worker draws the same numbers
    told     tokens of each answer that the receiver has
    over     which answers have ended
    sent     whether a worker has it now
    blamed   crashes that it shared with others, one after the other
    """

    asked: Generate
    receiver: Receiver
    most_tokens: int
    told: list[list[int]] = field(default_factory=list)
    over: list[bool] = field(default_factory=list)
    sent: bool = False
    blamed: int = 0

    def __post_init__(self) -> None:
        answers = self.asked.params.get("n", 1)
        self.told = [[] for _ in range(answers)]
        self.over = [False] * answers

    @property
    def number(self) -> int:
        return self.asked.request

    def as_sent(self) -> Generate:
        """The request behind what has come."""
        if not any(self.told) and not any(self.over):
            return self.asked
        done = [None if over else list(told) for told, over in zip(self.told, self.over, strict=True)]
        return msgspec.structs.replace(self.asked, done=done)

    def take(self, piece: Piece, vocab_size: int) -> None:
        """
        Raises:
            ProtocolError: no engine says that.
        """
        if not 0 <= piece.index < len(self.told):
            raise ProtocolError(f"answer {piece.index} of {len(self.told)}")
        told = self.told[piece.index]
        if self.over[piece.index]:
            raise ProtocolError("more of an answer that has ended")
        if piece.position != len(told):
            raise ProtocolError(f"token {piece.position} of an answer that has {len(told)}")
        if piece.token_ids and not 0 <= min(piece.token_ids) <= max(piece.token_ids) < vocab_size:
            raise ProtocolError(f"a token id that is not in the vocabulary of {vocab_size}")
        if len(told) + len(piece.token_ids) > self.most_tokens:
            raise ProtocolError(f"more than the {self.most_tokens} tokens that were asked for")
        if piece.logprobs is not None and not _are_of(piece.logprobs, piece.token_ids):
            raise ProtocolError("log-probabilities that are not those of its tokens")
        told += piece.token_ids
        self.over[piece.index] = piece.finish_reason is not None
        self.receiver.piece(piece)

    def end(self, metrics: RequestMetrics) -> None:
        """
        Raises:
            ProtocolError: an answer is still open.
        """
        if not all(self.over):
            raise ProtocolError("the end of a request, and an answer of it is open")
        self.receiver.ended(metrics)


def _are_of(scores: Sequence[TokenLogprobs], token_ids: Sequence[int]) -> bool:
    return len(scores) == len(token_ids) and all(
        token_id in score and not any(math.isnan(one.logprob) for one in score.values())
        for score, token_id in zip(scores, token_ids, strict=True)
    )


class Flights:
    """All requests of one model, in the order in which they came."""

    def __init__(self) -> None:
        self._open: dict[int, Flight] = {}

    def __len__(self) -> int:
        return len(self._open)

    def add(self, flight: Flight) -> None:
        self._open[flight.number] = flight

    def get(self, number: int) -> Flight | None:
        return self._open.get(number)

    def remove(self, number: int) -> Flight | None:
        return self._open.pop(number, None)

    def sent(self) -> list[Flight]:
        return [flight for flight in self._open.values() if flight.sent]

    def waiting(self) -> list[Flight]:
        return [flight for flight in self._open.values() if not flight.sent]

    def fail_all(self, error: Callable[[Flight], InferencePIOError]) -> None:
        flights, self._open = list(self._open.values()), {}
        for flight in flights:
            flight.receiver.failed(error(flight))
