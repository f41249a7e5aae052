"""`WorkerRuntime`: a model in a process of its own, behind the methods that it has in this one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import msgspec

from inference_pio.engine.checks import check_request
from inference_pio.errors import EngineClosed, InferencePIOError, PluginError, UsageError
from inference_pio.imports import import_object
from inference_pio.loader.store import ModelStore
from inference_pio.metrics.performance import PerformanceMetrics
from inference_pio.outputs import RequestOutput, StreamChunk
from inference_pio.plugin.runtime import (
    EncodedPrompt,
    FormattedPrompt,
    Progress,
    Reading,
    RuntimeOptions,
    RuntimePrompt,
)
from inference_pio.sampling_params import SamplingParams
from inference_pio.security.enforcement import is_strict, require
from inference_pio.security.levels import ResourceLimits, SecurityLevel
from inference_pio.security.report import EnforcementReport
from inference_pio.text.tools import checked_tools
from inference_pio.worker.as_data import (
    exact,
    options_as_data,
    params_as_data,
    with_figures,
)
from inference_pio.worker.background import BACKGROUND
from inference_pio.worker.booting import Cell
from inference_pio.worker.changing import within
from inference_pio.worker.collecting import Collected, Countdown, Streamed
from inference_pio.worker.finding import find
from inference_pio.worker.flights import Receiver
from inference_pio.worker.messages import Generate, Load, Loaded, Planned
from inference_pio.worker.model import WorkerModel
from inference_pio.worker.pictures import prompt_as_data
from inference_pio.worker.text import encoded, rendered
from inference_pio.worker.tokenizer import WorkerTokenizer

if TYPE_CHECKING:
    from torch import nn

    from inference_pio.config import BaseModelConfig
    from inference_pio.plugin.base import ModelPlugin
    from inference_pio.plugin.facts import TechniqueFact

_STAND_IN = "inference_pio.worker.stand_in:StandIn"


class WorkerRuntime:
    """All methods may be called from any thread; they wait for the worker.

    Args:
        level: how far what runs there is trusted; None: a built-in plugin to the most, one of others least.
        limits: what it may use; None: no limits of its own.
        enforcement: "strict" refuses a model whose limits nothing holds here, "best_effort" loads it; None: strict
            below HIGH_TRUST.
    """

    def __init__(
        self, level: SecurityLevel | None, limits: ResourceLimits | None, enforcement: str | None = None
    ) -> None:
        is_strict(SecurityLevel.MAXIMUM_TRUST, enforcement)  # a wrong word is told before anything starts
        self._level, self._limits, self._enforcement = level, limits, enforcement
        self._report: EnforcementReport | None = None
        self._model: WorkerModel | None = None
        self._pid = os.getpid()
        self._started: tuple[Cell, Load] | None = None
        self._planned: Planned | None = None
        self._loaded: Loaded | None = None
        self._text: WorkerTokenizer | None = None

    # Lifecycle ---------------------------------------------------------------------------------------------------

    def start(self, asked: Load, options: RuntimeOptions, progress: Progress | None) -> Planned:
        """Find the model, start a worker for it, let that plan it.

        Raises:
            InferencePIOError: the model cannot be found, read or run here, within its limits.
        """
        self.close()
        self._pid = os.getpid()
        found = find(asked, options, self._level, self._limits, progress)
        self._report = report = found.cell.report()
        if is_strict(found.cell.level, self._enforcement):
            require(report, found.name)
        self._started = found.cell, found.load

        async def started() -> Planned:
            self._model = WorkerModel(found.name, found.cell, found.load, progress, report.locks)
            return await self._model.plan()

        self._planned = BACKGROUND.run(started())
        return self._planned

    def prepare(
        self,
        plugin: ModelPlugin,
        config: BaseModelConfig,
        options: RuntimeOptions,
        limits: ResourceLimits | None,
        progress: Progress | None,
    ) -> BaseModelConfig:
        self._limits = limits
        asked = Load(
            config.model_path,
            plugin.manifest.name,
            options_as_data(config),
            {each.name: getattr(options, each.name) for each in fields(options)},
            None,
            False,
        )
        planned = self.start(asked, options, progress)
        try:
            return with_figures(config, planned.config)
        except BaseException:
            self.close()
            raise

    def load(self) -> nn.Module:
        self.launch()
        stand_in: nn.Module = import_object(_STAND_IN)(self._ready().name, self._ready().pid)
        return stand_in

    def launch(self) -> None:
        """Load what was planned."""
        self._loaded = BACKGROUND.run(self._ready().load())
        self._text = WorkerTokenizer(self.ask, self._loaded.vocab_size)

    def close(self) -> None:
        """End the worker; twice is fine."""
        model, self._model, self._loaded, self._text = self._model, None, None, None
        self._planned = None
        if model is not None and self._pid == os.getpid():  # after a fork the worker is the parent's
            BACKGROUND.run(model.close())

    @property
    def max_model_len(self) -> int:
        return self._running().max_model_len

    @property
    def tokenizer(self) -> WorkerTokenizer:
        if self._text is None:
            raise PluginError("the model is not loaded: call load_model first")
        return self._text

    @property
    def has_chat_template(self) -> bool:
        return self._running().has_chat_template

    @property
    def model(self) -> WorkerModel:
        """What it is behind the methods here, for who watches it."""
        return self._ready()

    def security_report(self, level: SecurityLevel, limits: ResourceLimits | None) -> EnforcementReport:
        if self._report is None or (level, limits) != (self._report.security_level, self._limits):
            return Cell.of(level, limits, None, ModelStore()).report()
        return self._report

    def ask(self, about: str, **given: Any) -> Any:
        """One question to the worker."""
        return BACKGROUND.run(self._ready().ask(about, **given))

    # Text --------------------------------------------------------------------------------------------------------

    def tokenize(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=add_special_tokens)

    def detokenize(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        return self.tokenizer.decode(token_ids, skip_special_tokens=skip_special_tokens)

    def render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> FormattedPrompt:
        return rendered(self.ask, messages, add_generation_prompt, tools, options)

    def encode(self, prompt: RuntimePrompt) -> EncodedPrompt:
        return encoded(self.ask, prompt, self._ready().name, self._running().sees)

    # Answers -----------------------------------------------------------------------------------------------------

    def generate(
        self,
        prompts: Sequence[RuntimePrompt],
        params: Sequence[SamplingParams],
        on_finished: Callable[[], None] | None = None,
        reading: Reading | None = None,
    ) -> list[RequestOutput]:
        ready = [self.encode(prompt) for prompt in prompts]
        all_over = Countdown(len(ready))
        waiting = [
            Collected(
                wanted.n, scored=wanted.logprobs is not None, chat=reading is not None, done=all_over.one
            )
            for wanted in params
        ]
        asked = [
            self._asked(prompt, wanted, reading, whole=True)
            for prompt, wanted in zip(ready, params, strict=True)
        ]
        numbers = self._submit(asked, waiting)
        try:
            all_over.wait(on_finished)
        except BaseException:
            self._abort(numbers)
            raise
        if len(waiting) == 1 and waiting[0].error is not None:
            raise waiting[0].error
        return [
            one.result(str(index), prompt.text, prompt.token_ids)
            for index, (one, prompt) in enumerate(zip(waiting, ready, strict=True))
        ]

    def stream(
        self, prompt: RuntimePrompt, params: SamplingParams, reading: Reading | None = None
    ) -> Iterator[StreamChunk]:
        streamed = Streamed(chat=reading is not None)
        numbers = self._submit([self._asked(self.encode(prompt), params, reading, whole=False)], [streamed])
        try:
            yield from streamed.chunks()
        finally:
            self._abort(numbers)

    def _asked(
        self, prompt: EncodedPrompt, params: SamplingParams, reading: Reading | None, *, whole: bool
    ) -> tuple[Generate, int]:
        """A request that can be served, and how many tokens an answer to it may have."""
        loaded = self._running()
        tools = None if reading is None else reading.tools
        if tools is not None:
            checked_tools(tools)
        token_ids = check_request(
            prompt.token_ids, params, vocab_size=loaded.vocab_size, max_model_len=loaded.max_model_len
        )
        asked = Generate(
            0,
            params_as_data(params),
            **prompt_as_data(prompt, token_ids),
            whole=whole,
            chat=reading is not None,
            tools=exact(tools),
        )
        return asked, min(params.max_tokens or loaded.max_model_len, loaded.max_model_len)

    def _submit(self, asked: Sequence[tuple[Generate, int]], receivers: Sequence[Receiver]) -> list[int]:
        """All at once: the worker's first step has as many of them as there can be."""

        async def submitted() -> list[int]:
            model, numbers = self._ready(), []
            try:
                for (request, most), receiver in zip(asked, receivers, strict=True):
                    numbers.append(model.submit(request, receiver, most))
            except InferencePIOError:  # all or none
                for number in numbers:
                    model.abort(number)
                raise
            return numbers

        return BACKGROUND.run(submitted())

    def _abort(self, numbers: Iterable[int]) -> None:
        model = self._model
        if model is not None and self._pid == os.getpid():
            for number in numbers:
                BACKGROUND.loop.call_soon_threadsafe(model.abort, number)

    # Measured values ---------------------------------------------------------------------------------------------

    def memory_stats(self) -> dict[str, float]:
        return self._figures("memory")

    def compute_stats(self) -> dict[str, float]:
        return self._figures("compute")

    def disk_stats(self) -> dict[str, float]:
        return self._figures("disk")

    def performance_metrics(self) -> PerformanceMetrics:
        told: PerformanceMetrics = self.ask("performance")
        return told

    def optimization_report(self, facts: Iterable[TechniqueFact]) -> list[dict[str, Any]]:  # noqa: ARG002 - it has its own
        told: list[dict[str, Any]] = self.ask("techniques")
        return told

    @property
    def fitting(self) -> dict[str, Any]:
        if self._planned is None:
            raise PluginError("the model is not initialised: call initialize first")
        told: dict[str, Any] = msgspec.to_builtins(self._planned.fitting)
        return told

    def optimize(self, **targets: Any) -> dict[str, Any]:
        """Without targets give back what can be had for nothing; with `memory_gb` run within that, by another worker.

        Raises:
            UsageError: another target, or more memory than the limit.
            ResourceError: the model cannot run within it; it goes on as it was.
            PluginError: it is busy.
        """
        if unknown := sorted(set(targets) - {"memory_gb"}):
            raise UsageError(f"optimize knows no {', '.join(unknown)}; it takes memory_gb")
        if targets.get("memory_gb") is None:
            told: dict[str, Any] = self.ask("optimize")
            return told
        self._running()
        assert self._started is not None
        cell, load = within(self._started, targets["memory_gb"])
        self.ask("fit", **vars(cell.limits))
        self._planned, self._loaded = BACKGROUND.run(self._ready().change(cell, load))
        self._started, self._limits, self._report = (cell, load), cell.limits, cell.report()
        return self.fitting

    # -------------------------------------------------------------------------------------------------------------

    def _figures(self, about: str) -> dict[str, float]:
        told: dict[str, float] = self.ask(about)
        return told

    def _ready(self) -> WorkerModel:
        if self._model is None:
            raise PluginError("the model is not initialised: call initialize first")
        if self._pid != os.getpid():
            raise EngineClosed("the model's worker is of the process that started it: load it in this one")
        return self._model

    def _running(self) -> Loaded:
        if self._loaded is None:
            raise PluginError("the model is not loaded: call load_model first")
        return self._loaded
