"""`LocalRuntime`: one plugin's model in this process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from inference_pio.engine.loop import EngineLoop
from inference_pio.engine.script import Script
from inference_pio.engine.sequence import Known
from inference_pio.errors import PluginError, TokenizerError, UsageError
from inference_pio.helper.process import HELPER
from inference_pio.loader.prefix_store import PrefixStore
from inference_pio.metrics import PerformanceMetrics
from inference_pio.metrics.memory import process_bytes
from inference_pio.optimizations.choice import Chosen
from inference_pio.optimizations.quality import Grants
from inference_pio.optimizations.report import families
from inference_pio.outputs import RequestOutput, StreamChunk
from inference_pio.plugin.base import ModelPlugin
from inference_pio.plugin.facts import TechniqueFact
from inference_pio.plugin.runtime import (
    EncodedPrompt,
    FormattedPrompt,
    Progress,
    Reading,
    RuntimeOptions,
    RuntimePrompt,
)
from inference_pio.runtime import stats
from inference_pio.runtime.allocator import keep_freed_memory, release_memory, return_freed_memory
from inference_pio.runtime.answering import answer_all, answer_as_it_comes, follow
from inference_pio.runtime.fitting import Fitted
from inference_pio.runtime.loading import load_model, make_engine
from inference_pio.runtime.opened import OpenedModel, model_store, open_model
from inference_pio.runtime.performance import CacheSize, engine_performance
from inference_pio.runtime.plan import MemoryPlan
from inference_pio.runtime.planning import fewer_threads, plan_within, with_fewer_threads
from inference_pio.runtime.prefix_tier import open_prefix_tier
from inference_pio.runtime.prepared import Prepared
from inference_pio.runtime.prompts import TextSide, encoded
from inference_pio.runtime.requests import Answers
from inference_pio.runtime.threads import threads_to_use
from inference_pio.sampling_params import SamplingParams
from inference_pio.security import EnforcementReport, ResourceLimits, SecurityLevel
from inference_pio.security.report import in_process_report
from inference_pio.text.reading import AnswerReader
from inference_pio.text.tokenizer import Tokenizer


class LocalRuntime:
    """Implements `inference_pio.plugin.runtime.Runtime`: `prepare` plans, `load` takes memory, `close` gives it back.

    Args:
        opened: the model, where the caller had to open it already to learn its architecture.
        grants: what approximate techniques may do, in place of what the checkpoint's receipt says.
    """

    def __init__(self, opened: OpenedModel | None = None, *, grants: Grants | None = None) -> None:
        self._opened = opened
        self._grants = grants
        self._store = model_store(None)
        self._fitted: Fitted | None = None
        self._model: nn.Module | None = None
        self._loop: EngineLoop | None = None
        self._text: TextSide | None = None
        self._prefixes: PrefixStore | None = None
        self._threads_before: int | None = None
        self._cache: CacheSize | None = None
        self._loaded_at = 0.0

    # Lifecycle ---------------------------------------------------------------------------------------------------

    def prepare(
        self,
        plugin: ModelPlugin,
        config: Any,
        options: RuntimeOptions,
        limits: ResourceLimits | None,
        progress: Progress | None,
    ) -> Any:
        with ExitStack() as undo:
            undo.callback(self.close)  # a refused model leaves no file open and no thread count behind
            if limits is not None:
                self._store = model_store(limits)
            before = torch.get_num_threads()
            options, fewer = fewer_threads(options, limits)
            threads = threads_to_use(options.threads, limits, before)
            if threads is not None:
                self._threads_before = before
                # Set before the engine's thread exists: torch hands the number on to threads started later.
                torch.set_num_threads(threads)
            if self._opened is None or config.model_path not in (
                str(self._opened.source.path),
                self._opened.source.name,
            ):
                self._opened = open_model(config.model_path, options, progress, self._store)
            fitted = plan_within(plugin, config, options, limits, progress, self._opened, self._grants)
            undo.pop_all()
        self._fitted = with_fewer_threads(fitted, fewer) if fewer else fitted
        return fitted.prepared.config

    def load(self) -> nn.Module:
        ready = self._ready()
        return_freed_memory()
        plugin, config = ready.plugin, ready.config
        chat_format = plugin.chat_format(config)
        # The tokenizer is built while the weights are read. Both in threads that end: a thread that has computed in
        # parallel keeps OpenMP workers for as long as it lives, and with more of them than processors OpenMP lets all
        # of them sleep between two operations, the engine's too.
        with ThreadPoolExecutor(2) as pool:
            text = (
                None
                if ready.options.skip_tokenizer_init
                else pool.submit(
                    TextSide.of, ready.files, chat_format, ready.images is not None, HELPER.render
                )
            )
            self._model = pool.submit(load_model, ready, self._store).result()
            self._text = text.result() if text else None
        keep_freed_memory()
        if self._text is not None and self._text.tokenizer.vocab_size > config.vocab_size:
            raise TokenizerError(
                ready.opened.source.path,
                f"the tokenizer has {self._text.tokenizer.vocab_size} tokens, the model {config.vocab_size}",
            )
        self._prefixes = open_prefix_tier(ready, self._store)
        ends = self._text.end_token_ids if self._text else frozenset()
        core = make_engine(ready, self._model, ends, self._prefixes)
        self._loop, self._loaded_at = EngineLoop(core), perf_counter()
        self._cache = CacheSize(
            ready.plan.kv_bytes_per_token * core.config.block_size,
            ready.plan.state_bytes_per_sequence,
            core.config.num_blocks,
        )
        return self._model

    def close(self) -> None:
        if self._loop is not None:
            self._loop.close()
        if self._opened is not None:
            self._opened.checkpoint.close()
        if self._threads_before is not None:
            torch.set_num_threads(self._threads_before)
        self._loop = self._text = self._model = self._fitted = self._opened = self._threads_before = None
        self._prefixes = None
        release_memory()

    @property
    def loop(self) -> EngineLoop:
        """The engine, for who gives it requests one by one."""
        if self._loop is None:
            raise PluginError("the model is not loaded: call load_model first")
        return self._loop

    @property
    def prepared(self) -> Prepared:
        return self._ready()

    @property
    def plan(self) -> MemoryPlan:
        return self._ready().plan

    @property
    def max_model_len(self) -> int:
        return self.plan.max_model_len

    @property
    def tokenizer(self) -> Tokenizer:
        return self.text.tokenizer

    @property
    def has_chat_template(self) -> bool:
        return self._text is not None and self._text.tokenizer.chat_template is not None

    @property
    def techniques(self) -> tuple[Chosen, ...]:
        return self._ready().techniques

    @property
    def kv_dtype(self) -> torch.dtype:
        return self._ready().kv_dtype

    @property
    def text(self) -> TextSide:
        if self._text is None:
            raise UsageError(
                "this model was loaded without a tokenizer: give prompt_token_ids, take token_ids"
            )
        return self._text

    # Text --------------------------------------------------------------------------------------------------------

    def tokenize(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        return self.text.tokenizer.encode(text, add_special_tokens=add_special_tokens)

    def detokenize(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        return self.text.tokenizer.decode(list(token_ids), skip_special_tokens=skip_special_tokens)

    def render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> FormattedPrompt:
        return self.text.render(messages, add_generation_prompt, tools, options)

    def encode(self, prompt: RuntimePrompt) -> EncodedPrompt:
        ready = self._ready()
        name, most = ready.config.model_name, ready.plan.max_model_len
        return encoded(prompt, self._text, ready.images, name, most, HELPER.rgb)

    def generate(
        self,
        prompts: Sequence[RuntimePrompt],
        params: Sequence[SamplingParams],
        on_finished: Callable[[], None] | None = None,
        reading: Reading | None = None,
    ) -> list[RequestOutput]:
        encoded = [self.encode(prompt) for prompt in prompts]  # a wrong prompt raises before anything runs
        return answer_all(self.submit, encoded, params, self._reader(reading), on_finished)

    def stream(
        self, prompt: RuntimePrompt, params: SamplingParams, reading: Reading | None = None
    ) -> Iterator[StreamChunk]:
        reader = self._reader(reading)
        return answer_as_it_comes(self.submit, lambda: self.encode(prompt), params, reader)

    def follow(self, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> list[Tensor]:
        """Logits [tokens, vocab_size] in front of each token of each answer (`runtime/answering.py`)."""
        return follow(self.submit, prompts, answers)

    # Measured values ---------------------------------------------------------------------------------------------

    def security_report(self, level: SecurityLevel, limits: ResourceLimits) -> EnforcementReport:
        return in_process_report(level, limits)

    def memory_stats(self) -> dict[str, float]:
        engine = self._loop.stats() if self._loop else None
        if self._fitted is None:
            return stats.memory_stats(self._model, engine, None, 0)
        return stats.memory_stats(self._model, engine, self.plan, self.prepared.options.block_size)

    def compute_stats(self) -> dict[str, float]:
        return stats.compute_stats(self._loop.stats() if self._loop else None)

    def disk_stats(self) -> dict[str, float]:
        return stats.disk_stats(self._opened, self._store, self._prefixes, self._model)

    def performance_metrics(self) -> PerformanceMetrics:
        if self._loop is None or self._cache is None:
            return PerformanceMetrics.unmeasured()
        return engine_performance(self._loop.stats(), perf_counter() - self._loaded_at, self._cache)

    def optimization_report(self, facts: Iterable[TechniqueFact]) -> list[dict[str, Any]]:
        ready = self._ready()
        return families(facts, ready.techniques, self._model if self._model is not None else ready.model)

    @property
    def fitted(self) -> Fitted:
        """The plan, and what was done to make it fit."""
        self._ready()
        assert self._fitted is not None
        return self._fitted

    @property
    def fitting(self) -> dict[str, Any]:
        return self.fitted.as_dict()

    def try_to_fit(self, limits: ResourceLimits) -> dict[str, Any]:
        """What would be done to a plan of this model within other limits; nothing is changed.

        Raises:
            ResourceError: nothing fits.
        """
        asked = self.fitted.asked
        options = replace(asked.options, fit=True)
        grants = self._grants
        return plan_within(asked.plugin, asked.config, options, limits, None, asked.files, grants).as_dict()

    def optimize(self, **targets: Any) -> dict[str, Any]:
        """Empty the prefix cache and return freed pages to the system; bytes before and after."""
        if targets:
            raise UsageError(
                f"optimize knows no {', '.join(sorted(targets))} here; of a model with limits it takes memory_gb"
            )
        before = process_bytes()
        if self._loop is not None:
            self._loop.reset_prefix_cache()
        release_memory()
        return stats.given_back(self.plan if self._fitted else None, before, process_bytes())

    def _reader(self, reading: Reading | None) -> AnswerReader | None:
        return self.text.reader(reading.tools) if reading else None

    def _ready(self) -> Prepared:
        if self._fitted is None:
            raise PluginError("the model is not initialised: call initialize first")
        return self._fitted.prepared

    def submit(
        self,
        prompt: EncodedPrompt,
        params: SamplingParams,
        changed: threading.Condition | None = None,
        kept: frozenset[int] = frozenset(),
        *,
        whole: bool = False,
        script: Script | None = None,
        done: Known = (),
    ) -> Answers:
        """Give the engine a request. With `whole` nobody reads tokens before all answers have ended; `done` are tokens
        of the answers that an engine has given already.
        """
        loop = self.loop
        if self._text is None and params.stop_strings:
            raise UsageError("stop strings need a tokenizer, and this model was loaded without one")
        started = perf_counter()
        # A stop string may end an answer early, and is found in the text.
        whole = whole and not params.stop_strings
        ids = prompt.token_ids
        stream = loop.submit(
            ids,
            params,
            media=prompt.media,
            changed=changed,
            whole=whole,
            script=script,
            arrived=started,
            done=done,
        )
        tokenizer = self._text.tokenizer if self._text else None
        answers = Answers(stream, prompt.text, ids, params, tokenizer, started, kept, self._cache)
        answers.resume(done)
        return answers
