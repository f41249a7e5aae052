"""The model under measurement: token ids in, token ids out."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from inference_pio.benchmarks.divergence import Probe
from inference_pio.benchmarks.workload import Workload
from inference_pio.engine.stream import RequestStream
from inference_pio.engine.updates import EngineStats
from inference_pio.errors import GenerationError, PluginError, UsageError
from inference_pio.metrics import PerformanceMetrics
from inference_pio.optimizations.choice import Chosen
from inference_pio.outputs import RequestOutput
from inference_pio.plugin.registry import create_plugin
from inference_pio.plugin.runtime import RuntimeOptions
from inference_pio.runtime.local import LocalRuntime
from inference_pio.runtime.opened import model_store, open_model
from inference_pio.runtime.plan import MemoryPlan
from inference_pio.runtime.settle import settle
from inference_pio.sampling_params import SamplingParams
from inference_pio.security import ResourceLimits
from inference_pio.text.tokenizer import Tokenizer

_log = logging.getLogger("inference_pio")


class LoadedModel:
    """One plugin with one loaded model, sized for the workloads it will be given.

    Args:
        plugin: its name.
        model: whatever names a model.
        workloads: what it will be given: context and batch are as large as these need.
        dtype, device, kv_cache_dtype: as `LLM` takes them.
        flags: further fields of the plugin's configuration.
        options: further fields of `RuntimeOptions`; a context shorter than the workloads need is refused.
        limits: what the model may use.
        text: load the tokenizer too.
        tuned: use what `inference-pio tune` found best, as `LLM` does.

    Raises:
        InferencePIOError: the model cannot be found, read or run here.
    """

    def __init__(
        self,
        plugin: str,
        model: str,
        workloads: Sequence[Workload],
        *,
        dtype: str = "auto",
        device: str = "auto",
        kv_cache_dtype: str = "auto",
        flags: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        limits: ResourceLimits | None = None,
        text: bool = False,
        tuned: bool = True,
    ) -> None:
        longest = max(workload.longest for workload in workloads)
        # Answers to random prompts go round in circles: what guessing ahead gains on them says nothing.
        usual = {"kv_cache_dtype": kv_cache_dtype, "speculation": 0, "max_model_len": longest}
        chosen: dict[str, Any] = {**usual, **(options or {})}
        if chosen["max_model_len"] < longest:
            raise UsageError(
                f"max_model_len {chosen['max_model_len']} is too short: the workload has {longest} tokens"
            )
        chosen["max_num_seqs"] = max(workload.concurrency for workload in workloads)
        with ExitStack() as undo:
            opened = open_model(model, RuntimeOptions())
            self._runtime = LocalRuntime(opened)
            undo.callback(self._runtime.close)
            self.plugin = create_plugin(plugin, runtime=self._runtime)
            path = str(opened.source.path)
            config = self.plugin.config_class(model_path=path, torch_dtype=dtype, device=device)
            for name, value in (flags or {}).items():
                if not hasattr(config, name):
                    raise PluginError(f"{plugin!r} has no configuration field {name!r}")
                setattr(config, name, value)
            loaded = {"torch_dtype": dtype, "device": device}
            settled = settle(
                opened, model_store(None), chosen, loaded, profile=None, tuned=tuned, limits=limits
            )
            if settled.note:
                _log.info("%s: %s", opened.source.name, settled.note)
            given = {"resource_limits": limits} if limits is not None else {}
            if not self.plugin.initialize(
                config=config, skip_tokenizer_init=not text, **settled.options, **given
            ):
                raise self.plugin.last_error or PluginError(f"{plugin!r} could not be initialised")
            self.model: nn.Module = self.plugin.load_model()
            undo.pop_all()

    @property
    def vocab_size(self) -> int:
        return self.plugin.config.vocab_size

    @property
    def name(self) -> str:
        """Model and number format, as a report's title says it."""
        return f"{self.plugin.config.model_name} ({str(self.dtype).removeprefix('torch.')}, {self.device})"

    @property
    def dtype(self) -> torch.dtype:
        return next(self.model.parameters()).dtype

    @property
    def kv_dtype(self) -> torch.dtype:
        return self._runtime.kv_dtype

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def tokenizer(self) -> Tokenizer:
        """Where it was loaded with `text`."""
        return self._runtime.text.tokenizer

    def render_chat(self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool) -> str:
        """The prompt that the model's chat template makes of a conversation."""
        return self._runtime.render_chat(messages, add_generation_prompt=add_generation_prompt)

    @property
    def plan(self) -> MemoryPlan:
        return self._runtime.plan

    def stats(self) -> EngineStats:
        """The engine's counts, as of its last step."""
        return self._runtime.loop.stats()

    def performance(self) -> PerformanceMetrics:
        """Of everything since it was loaded, what warmed it up included."""
        return self.plugin.get_performance_metrics()

    @property
    def techniques(self) -> tuple[Chosen, ...]:
        """How each of the registry stands in it."""
        return self._runtime.techniques

    @property
    def options(self) -> RuntimeOptions:
        return self._runtime.prepared.options

    def follow(self, probes: Sequence[Probe]) -> list[Tensor]:
        """Logits [tokens, vocab_size] of each probe's answer."""
        return self._runtime.follow([probe.prompt for probe in probes], [probe.answer for probe in probes])

    def run(self, workload: Workload, round_number: int) -> list[RequestOutput]:
        """All prompts of a round; raises `GenerationError` where one of them failed or was cut short."""
        outputs: list[RequestOutput] = []
        params = workload.sampling()
        for prompts in self._waves(workload, round_number):
            outputs += self._runtime.generate(prompts, [params] * len(prompts))
        for output in outputs:
            answer = output.outputs[0]
            if len(answer.token_ids) != workload.output_len:
                raise GenerationError(
                    f"a request of {workload} gave {len(answer.token_ids)} tokens: "
                    f"{answer.error or answer.finish_reason}"
                )
        return outputs

    def submit(
        self, prompt: Sequence[int], output_len: int, arrived: float, changed: threading.Condition
    ) -> RequestStream:
        """Queue one greedy request of exactly so many tokens, which came at `arrived` by `perf_counter`; `changed` is
        notified when it has ended."""
        params = Workload(len(prompt), output_len).sampling()
        return self._runtime.loop.submit(
            self._plain(prompt), params, changed=changed, whole=True, arrived=arrived
        )

    def answers(
        self,
        prompts: Sequence[str | Sequence[int]],
        params: Sequence[SamplingParams],
        on_finished: Callable[[], None],
    ) -> list[str]:
        """The text that follows each prompt; raises `GenerationError` where one was not answered."""
        outputs = self._runtime.generate(prompts, params, on_finished)
        for output in outputs:
            if output.outputs[0].error is not None:
                raise GenerationError(f"a question was not answered: {output.outputs[0].error}")
        return [output.outputs[0].text for output in outputs]

    def token_times(self, workload: Workload, round_number: int) -> list[float]:
        """Seconds from the request to each token of one streamed answer."""
        [[prompt]] = self._waves(workload, round_number)
        start = time.perf_counter()
        times: list[float] = []
        for chunk in self._runtime.stream(prompt, workload.sampling()):
            times += [time.perf_counter() - start] * len(chunk.token_ids)
        return times

    def _waves(self, workload: Workload, round_number: int) -> list[list[list[int]]]:
        waves = workload.waves(self.vocab_size, round_number)
        return [[self._plain(ids) for ids in wave] for wave in waves]

    def _plain(self, ids: Sequence[int]) -> list[int]:
        """The same, none of whose random tokens asks for an image of a model that sees."""
        processor = self.plugin.media_processor(self.plugin.config)
        if processor is None:
            return list(ids)
        placeholder = processor.placeholder
        return [one if one != placeholder else 0 for one in ids]

    def close(self) -> None:
        self.plugin.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
