"""Requests of a parent in the engine of its worker: answers go out as they come, those of one step together."""

from __future__ import annotations

import os
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from inference_pio.children.crossing import words_of
from inference_pio.engine.updates import SequenceUpdate
from inference_pio.outputs import ChatChunk, StreamChunk
from inference_pio.plugin.media import ImageSource
from inference_pio.plugin.runtime import EncodedPrompt, FormattedPrompt, ImagePrompt, RuntimePrompt
from inference_pio.runtime.local import LocalRuntime
from inference_pio.runtime.requests import Answers
from inference_pio.sampling_params import SamplingParams
from inference_pio.text.answer import AnswerParser
from inference_pio.text.reading import chunk_of
from inference_pio.worker.events import written
from inference_pio.worker.messages import Ended, Failed, FromWorker, Generate, Piece, Pieces

_NO_KEPT: frozenset[int] = frozenset()


@dataclass
class _Running:
    """`parsers` read the answers of a chat, one each."""

    answers: Answers
    parsers: list[AnswerParser] = field(default_factory=list)


class Requests:
    """`add` and `abort` are called by the thread that hears the parent.

    Args:
        say: sends a message to the parent.
        beside: have a thread of its own tell what a step gave, while a device computes the next one. Without, the
            engine's thread tells it between two steps: where processors compute, another thread would take its turn
            from one of them, with nothing of what it needs in the caches.
    """

    def __init__(self, runtime: LocalRuntime, say: Callable[[FromWorker], None], *, beside: bool) -> None:
        self._runtime, self._say = runtime, say
        self._changed = threading.Condition()
        self._running: dict[int, _Running] = {}
        self._telling = threading.Lock()
        self._closing = False
        self._stepped = threading.Event()
        self._teller: threading.Thread | None = None
        if beside:
            self._teller = threading.Thread(
                target=self._tell_beside, name="inference-pio-teller", daemon=True
            )
            self._teller.start()
        runtime.loop.after_step(self._stepped.set if beside else self._tell_or_end)

    def add(self, asked: Generate, images: Sequence[ImageSource]) -> None:
        """
        Raises:
            InferencePIOError: it cannot be served.
        """
        params = SamplingParams(**asked.params)
        reader = self._runtime.text.reader(asked.tools) if asked.chat else None
        encoded = self._runtime.encode(_prompt(asked, images))
        kept = reader.kept if reader else _NO_KEPT
        answers = self._runtime.submit(
            encoded, params, self._changed, kept, whole=asked.whole, done=asked.done
        )
        running = _Running(answers)
        if reader is not None:
            running.parsers = [reader.parser(encoded.text or "") for _ in range(params.n)]
            for parser, output in zip(running.parsers, answers.outputs, strict=True):
                parser.feed(output.text)
        with self._changed:
            self._running[asked.request] = running
        self._tell_or_end()  # what steps gave before it stood there

    def abort(self, request: int) -> None:
        with self._changed:
            running = self._running.get(request)
        if running is not None:
            running.answers.cancel()

    def close(self) -> None:
        """Nothing is told any more."""
        self._closing = True
        self._stepped.set()
        if self._teller is not None:
            self._teller.join()

    def _tell_beside(self) -> None:
        while self._stepped.wait() and not self._closing:
            self._stepped.clear()
            self._tell_or_end()

    def _tell_or_end(self) -> None:
        """A worker that cannot tell what it computes is of no use: its parent starts another one."""
        told = False
        try:
            with self._telling:
                self._tell()
            told = True
        finally:
            if not told:
                traceback.print_exc()
                os._exit(1)

    def _tell(self) -> None:
        if self._closing:
            return
        with self._changed:
            ready = [each for each in self._running.items() if each[1].answers.stream.ready]
        pieces: list[Piece] = []
        over: list[FromWorker] = []
        for request, running in ready:
            for update in running.answers.stream.take_ready():
                pieces += _pieces(request, running, update)
            if running.answers.stream.exhausted or running.answers.finished:
                over.append(_end(request, running))
                with self._changed:
                    del self._running[request]
        if pieces:
            self._say(Pieces(pieces))
        for message in over:
            self._say(message)


def _prompt(asked: Generate, images: Sequence[ImageSource]) -> RuntimePrompt:
    if asked.token_ids is not None and not images:
        return EncodedPrompt(asked.text, asked.token_ids)
    return prompt_of(asked.text if asked.token_ids is None else asked.token_ids, asked.formatted, images)


def prompt_of(
    written: str | list[int] | None, formatted: bool, images: Sequence[ImageSource]
) -> RuntimePrompt:
    """What a parent sent of a prompt that is not encoded; `formatted` text is what a chat template made."""
    if formatted:
        return FormattedPrompt(str(written), images)
    return ImagePrompt(written or "", tuple(images))


def _pieces(request: int, running: _Running, update: SequenceUpdate) -> list[Piece]:
    position = len(running.answers.outputs[update.index].token_ids)
    chunk = running.answers.take(update)
    if chunk is None:
        return []
    if running.parsers:
        chunk = chunk_of(running.parsers[chunk.index], chunk)
    return [_piece(request, position, chunk)]


def _piece(request: int, position: int, chunk: StreamChunk) -> Piece:
    events = [written(event) for event in chunk.events] if isinstance(chunk, ChatChunk) else []
    return Piece(
        request,
        chunk.index,
        position,
        chunk.token_ids,
        chunk.text,
        chunk.finish_reason,
        chunk.stop_reason,
        chunk.logprobs,
        chunk.cache_explanation,
        events,
    )


def _end(request: int, running: _Running) -> FromWorker:
    if running.answers.errors:
        return Failed(*words_of(running.answers.errors[0]), request)
    return Ended(request, running.answers.metrics())
