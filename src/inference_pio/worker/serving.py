"""A worker at work: it loads one model and answers what its parent asks, until that closes it or hangs up."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import msgspec
import torch

from inference_pio.children.crossing import words_of
from inference_pio.children.line import Line
from inference_pio.config import BaseModelConfig
from inference_pio.errors import InferencePIOError, PluginError
from inference_pio.plugin.registry import choose_external
from inference_pio.plugin.starting import StartRequest
from inference_pio.runtime.start import Started, start
from inference_pio.security import ResourceLimits, SecurityLevel
from inference_pio.worker.booting import STACK_MB, THREADS_VARIABLE
from inference_pio.worker.gpu import limit_allocator
from inference_pio.worker.messages import (
    Abort,
    Answered,
    Ask,
    Close,
    Failed,
    Fitting,
    FromParent,
    FromWorker,
    Generate,
    Go,
    Load,
    Loaded,
    Ping,
    Plain,
    Planned,
    Pong,
    Progress,
    Rows,
)
from inference_pio.worker.pictures import Album
from inference_pio.worker.questions import QUESTIONS
from inference_pio.worker.requests import Requests

Words = Line[FromParent, FromWorker]


def serve(line: Words) -> None:
    """Until the parent says Close, or hangs up."""
    # MKL finds processors out by moving to each of them, which a worker may not: it would see one.
    torch.set_num_threads(int(os.environ[THREADS_VARIABLE]))
    threading.stack_size(STACK_MB << 20)
    try:
        Worker(line).run()
    except (BrokenPipeError, ConnectionResetError):  # the parent has hung up: nobody is left to tell
        return


class Worker:
    def __init__(self, line: Words) -> None:
        self._line = line
        self._started: Started | None = None
        self._requests: Requests | None = None
        self._album = Album()
        self._gpu_memory_gb: float | None = None
        self._handlers: Mapping[type, Callable[[Any], None]] = {
            Load: self._load,
            Go: self._go,
            Rows: self._album.add,
            Generate: self._generate,
            Abort: self._abort,
            Ask: self._ask,
            Ping: self._ping,
        }

    def run(self) -> None:
        try:
            while (message := self._line.hear()) is not None and not isinstance(message, Close):
                self._handlers[type(message)](message)
        finally:
            if self._requests is not None:
                self._requests.close()
            if self._started is not None:
                self._started.plugin.cleanup()

    def _load(self, asked: Load) -> None:
        limits, self._gpu_memory_gb = None, asked.gpu_memory_gb
        if asked.memory_gb is not None:
            limits = ResourceLimits(
                memory_gb=asked.memory_gb,
                cpu_percent=asked.cpu_percent or 100,
                disk_space_gb=asked.disk_space_gb or 0,
                gpu_memory_gb=asked.gpu_memory_gb or 0,
            )
        choose_external(asked.external)
        try:
            self._started = started = start(
                StartRequest(
                    asked.model,
                    asked.plugin,
                    asked.options,
                    asked.config,
                    asked.profile,
                    asked.tuned,
                    SecurityLevel.MAXIMUM_TRUST,
                    None,
                    limits,
                    self._progress,
                )
            )
        except InferencePIOError as error:
            self._line.say(_failed(error))
            return
        runtime = started.runtime
        fitting = msgspec.convert(runtime.fitting, Fitting)
        config = _plain(runtime.prepared.config)
        self._line.say(Planned(config, fitting, started.warnings, started.notes))

    def _go(self, _: Go) -> None:
        started = self._ready()
        if self._gpu_memory_gb is not None:
            limit_allocator(started.runtime.prepared.device, self._gpu_memory_gb, torch.cuda)
        try:
            started.plugin.load_model()
        except InferencePIOError as error:
            self._line.say(_failed(error))
            return
        runtime = started.runtime
        on_processors = runtime.prepared.device.type == "cpu"
        self._requests = Requests(runtime, self._line.say, beside=not on_processors)
        self._line.say(
            Loaded(
                runtime.prepared.config.vocab_size,
                runtime.max_model_len,
                runtime.has_chat_template,
                runtime.prepared.images is not None,
            )
        )

    def _generate(self, asked: Generate) -> None:
        assert self._requests is not None
        images = self._album.take(asked.request, asked.images)
        try:
            self._requests.add(asked, images)
        except InferencePIOError as error:
            self._line.say(_failed(error, request=asked.request))

    def _abort(self, asked: Abort) -> None:
        assert self._requests is not None
        self._requests.abort(asked.request)

    def _ask(self, asked: Ask) -> None:
        images = self._album.take(asked.number, asked.images)
        given = {**asked.given, "images": images} if images else asked.given
        try:
            self._line.say(Answered(asked.number, QUESTIONS[asked.about](self._ready(), given)))
        except InferencePIOError as error:
            self._line.say(_failed(error, number=asked.number))

    def _ping(self, asked: Ping) -> None:
        if self._requests is None:
            self._line.say(Pong(asked.number, 0, 0, 0, busy=False))
            return
        stats = self._ready().runtime.loop.stats()
        busy = stats.num_running + stats.num_waiting > 0
        work = stats.work
        self._line.say(Pong(asked.number, work.steps, work.step_tokens, stats.tokens_under_way, busy=busy))

    def _progress(self, done: int, total: int, what: str) -> None:
        self._line.say(Progress(done, total, what))

    def _ready(self) -> Started:
        if self._started is None:
            raise PluginError("nothing is planned so far")
        return self._started


def _failed(error: InferencePIOError, request: int | None = None, number: int | None = None) -> Failed:
    return Failed(*words_of(error), request, number)


def _plain(config: BaseModelConfig) -> dict[str, Plain]:
    """What of a configuration is a number or a word; dtypes by name."""
    told = {each.name: getattr(config, each.name) for each in fields(config)}
    named = {name: str(value) for name, value in told.items() if isinstance(value, torch.dtype)}
    return {**{name: value for name, value in told.items() if isinstance(value, Plain)}, **named}
