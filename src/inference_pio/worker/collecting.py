"""What waits in a caller's thread for answers out of a worker."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from time import perf_counter

from inference_pio.errors import InferencePIOError
from inference_pio.outputs import (
    ChatChunk,
    ChatEvent,
    CompletionOutput,
    RequestMetrics,
    RequestOutput,
    StreamChunk,
)
from inference_pio.text.reading import gathered
from inference_pio.worker.events import read
from inference_pio.worker.messages import Piece


class Clock:
    """When a request was asked for, and when its first token came: where the caller is, whatever workers did."""

    def __init__(self) -> None:
        self._asked = perf_counter()
        self._first: float | None = None

    def token(self) -> None:
        if self._first is None:
            self._first = perf_counter()

    def over(self, metrics: RequestMetrics) -> RequestMetrics:
        """A worker's figures with the caller's times."""
        now = perf_counter()
        first = (self._first or now) - self._asked
        return replace(metrics, time_to_first_token=first, time_total=now - self._asked)


class Collected:
    """A `Receiver` that adds everything up; `done` is called when there is no more."""

    def __init__(self, answers: int, *, scored: bool, chat: bool, done: Callable[[], None]) -> None:
        self.outputs = [
            CompletionOutput(index, "", [], 0.0 if scored else None, [] if scored else None)
            for index in range(answers)
        ]
        self.error: InferencePIOError | None = None
        self._events: list[list[ChatEvent]] | None = [[] for _ in range(answers)] if chat else None
        self._metrics: RequestMetrics | None = None
        self._clock, self._done = Clock(), done

    def piece(self, piece: Piece) -> None:
        self._clock.token()
        output = self.outputs[piece.index]
        output.text += piece.text
        output.token_ids += piece.token_ids
        output.finish_reason, output.stop_reason = piece.finish_reason, piece.stop_reason
        if output.logprobs is not None and piece.logprobs:
            output.logprobs += piece.logprobs
            output.cumulative_logprob = (output.cumulative_logprob or 0.0) + sum(
                score[token_id].logprob
                for score, token_id in zip(piece.logprobs, piece.token_ids, strict=True)
            )
        if self._events is not None:
            self._events[piece.index] += map(read, piece.events)

    def ended(self, metrics: RequestMetrics) -> None:
        self._metrics = self._clock.over(metrics)
        if self._events is not None:
            for output, events in zip(self.outputs, self._events, strict=True):
                output.reasoning, output.text, output.tool_calls = gathered(events)
        self._done()

    def failed(self, error: InferencePIOError) -> None:
        self.error = error
        for output in self.outputs:
            if output.finish_reason in (None, "error"):
                output.finish_reason, output.error = "error", str(error)
        self._done()

    def result(self, request_id: str, prompt: str | None, token_ids: list[int]) -> RequestOutput:
        return RequestOutput(request_id, prompt, token_ids, self.outputs, True, self._metrics)


class Streamed:
    """A `Receiver` whose chunks another thread takes as they come, and makes of what came: who hears workers is quick.
    A chunk that ends an answer waits for what follows it: the last of all has the request's metrics.
    """

    def __init__(self, *, chat: bool) -> None:
        self._chat, self._clock = chat, Clock()
        self._came: queue.SimpleQueue[Piece | RequestMetrics | InferencePIOError] = queue.SimpleQueue()

    def piece(self, piece: Piece) -> None:
        self._clock.token()
        self._came.put(piece)

    def ended(self, metrics: RequestMetrics) -> None:
        self._came.put(self._clock.over(metrics))

    def failed(self, error: InferencePIOError) -> None:
        self._came.put(error)

    def chunks(self) -> Iterator[StreamChunk]:
        """
        Raises:
            InferencePIOError: the request failed.
        """
        held: StreamChunk | None = None
        while True:
            came = self._came.get()
            if isinstance(came, RequestMetrics):
                if held is not None:
                    yield replace(held, metrics=came)
                return
            if held is not None:
                yield held
            if isinstance(came, InferencePIOError):
                raise came
            chunk = _chunk(came, chat=self._chat)
            held = chunk if came.finish_reason is not None else None
            if held is None:
                yield chunk


class Countdown:
    """Many requests; whoever waits is woken when all are over, and told of each."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._changed = threading.Condition()
        self._over = 0

    def one(self) -> None:
        with self._changed:
            self._over += 1
            self._changed.notify()

    def wait(self, told: Callable[[], None] | None) -> None:
        """Until all are over; `told` is called in this thread for each."""
        while self._left:
            with self._changed:
                while not self._over:
                    self._changed.wait()
                over, self._over = self._over, 0
            self._left -= over
            for _ in range(over if told else 0):
                assert told is not None
                told()


def _chunk(piece: Piece, *, chat: bool) -> StreamChunk:
    plain = StreamChunk(
        piece.index,
        piece.text,
        piece.token_ids,
        piece.logprobs,
        piece.finish_reason,
        piece.stop_reason,
        piece.explanation,
    )
    if not chat:
        return plain
    events = tuple(map(read, piece.events))
    reasoning, text, _ = gathered(events)
    return ChatChunk(**{**vars(plain), "text": text}, reasoning=reasoning or "", events=events)
