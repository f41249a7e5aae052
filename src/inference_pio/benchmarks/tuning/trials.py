"""What a setting costs: seconds of work on a loaded model, through an engine with those options."""

from __future__ import annotations

import random
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from importlib import resources
from typing import Any

import torch
from torch import nn

from inference_pio.benchmarks.workload import Workload
from inference_pio.engine.core import EngineCore
from inference_pio.errors import GenerationError
from inference_pio.plugin.runtime import RuntimeOptions
from inference_pio.runtime.another import another_core, planned_with
from inference_pio.runtime.prepared import Prepared
from inference_pio.text.tokenizer import Tokenizer

_TEXT = "sonnets.txt"
_MOST_CORES = 8
ENGINE_OPTIONS = ("max_num_batched_tokens", "block_size", "kv_cache_dtype", "speculation")
# What a token of an answer takes, in tokens of a prompt: to guess what a workload takes from what a smaller one did.
_ANSWER_WEIGHT = 5


class Trials:
    """Runs a workload, prompts being lines of verse in an order that is new in every round.

    Real text, because what guessing ahead brings depends on it. Weights are loaded once: a setting has an engine of its
    own, and the threads of this one thread of the process.
    """

    def __init__(
        self,
        ready: Prepared,
        model: nn.Module,
        tokenizer: Tokenizer,
        base: RuntimeOptions,
        workload: Workload,
    ) -> None:
        text = resources.files("inference_pio.benchmarks").joinpath(_TEXT).read_text(encoding="utf-8")
        self._first = tokenizer.encode("")
        self._lines = [tokenizer.encode_text(f"{line}\n") for line in text.splitlines() if line.strip()]
        self._ready, self._model = ready, model
        self._base = base
        self._cores: OrderedDict[tuple[Any, ...], EngineCore] = OrderedDict()
        self._requests = 0
        self.workload = workload

    def cost(self, setting: Mapping[str, Any], round_number: int) -> float:
        """Seconds.

        Raises:
            GenerationError: the model failed, or an answer is shorter than it has to be.
        """
        torch.set_num_threads(setting["threads"])
        core = self._core(setting)
        return self._seconds(core, self.workload, round_number)

    def take(self, workload: Workload) -> None:
        """Measure that from now on."""
        self.workload = workload
        self._cores.clear()

    def options(self, setting: Mapping[str, Any]) -> RuntimeOptions:
        """Those of an engine for the workload and a setting."""
        return replace(
            self._base,
            max_model_len=self.workload.longest,
            max_num_seqs=self.workload.concurrency,
            kv_cache_memory_gb=_ENOUGH_GB,
            **{name: setting[name] for name in ENGINE_OPTIONS},
        )

    def plan(self, setting: Mapping[str, Any]) -> Prepared:
        """What an engine with a setting would hold.

        Raises:
            ConfigError, ResourceError: this model, or this machine, does not allow it.
        """
        return planned_with(self._ready, self.options(setting))

    def _core(self, setting: Mapping[str, Any]) -> EngineCore:
        key = tuple(setting[name] for name in ENGINE_OPTIONS)
        if key not in self._cores:
            if len(self._cores) == _MOST_CORES:
                self._cores.popitem(last=False)
            core = another_core(self._ready, self._model, self.options(setting))
            # Its first steps are recorded, and touch memory for the first time.
            self._seconds(
                core, replace(self.workload, prompt_len=min(16, self.workload.prompt_len), output_len=6), -1
            )
            self._cores[key] = core
        self._cores.move_to_end(key)
        return self._cores[key]

    def _seconds(self, core: EngineCore, workload: Workload, round_number: int) -> float:
        prompts = [
            self._prompt(workload.prompt_len, f"{round_number} {n}") for n in range(workload.concurrency)
        ]
        core.reset_prefix_cache()
        tokens = 0
        start = time.perf_counter()
        for prompt in prompts:
            self._requests += 1
            core.add_request(f"trial {self._requests}", prompt, workload.sampling())
        while core.has_work:
            for update in core.step():
                if update.error is not None:
                    raise update.error
                tokens += len(update.token_ids)
        seconds = time.perf_counter() - start
        if tokens != workload.output_tokens:
            raise GenerationError(f"{workload} gave {tokens} tokens instead of {workload.output_tokens}")
        return seconds

    def _prompt(self, length: int, seed: str) -> list[int]:
        draw = random.Random(seed)
        ids = list(self._first)
        while len(ids) < length:
            ids += draw.choice(self._lines)
        return ids[:length]


# More than any workload's sequences need: caches are as large as those are.
_ENOUGH_GB = 1e3


def size_of(workload: Workload) -> int:
    """What a workload takes, in tokens of a prompt."""
    return workload.concurrency * (workload.prompt_len + _ANSWER_WEIGHT * workload.output_len)
