"""What there is to choose for one model on this machine, and the work on which it is measured."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from inference_pio.benchmarks.tuning.search import Axis, Setting
from inference_pio.benchmarks.tuning.trials import ENGINE_OPTIONS, Trials, size_of
from inference_pio.benchmarks.workload import Workload
from inference_pio.errors import ConfigError, ResourceError, UsageError
from inference_pio.llm import LLM
from inference_pio.metrics.hardware import usable_threads
from inference_pio.runtime.local import LocalRuntime
from inference_pio.runtime.prepared import Prepared
from inference_pio.runtime.settle import THREADS_VARIABLE

# Largest first; what is taken is as large as the time allows.
WORK: Mapping[str, tuple[Workload, ...]] = {
    "latency": tuple(
        Workload(prompt, answer) for prompt, answer in ((512, 64), (256, 32), (128, 16), (64, 8))
    ),
    "throughput": (
        Workload(128, 32, 32),
        Workload(128, 32, 16),
        Workload(64, 16, 16),
        Workload(64, 16, 8),
        Workload(32, 8, 4),
    ),
}
_CHUNKS = (64, 128, 256, 512, 1024, 2048)
_BLOCKS = (16, 32, 64, 128)
_DEPTHS = (0, 3, 7, 15)
_MOST_THREAD_COUNTS = 5


@dataclass(frozen=True)
class Space:
    """`start` is what the model runs with by default; axes come by what they usually bring."""

    ready: Prepared
    trials: Trials
    start: Setting
    axes: tuple[Axis, ...]


def space_of(
    llm: LLM, profile: str, most_seconds: float, named: Mapping[str, Any], *, int8_cache: bool = False
) -> Space:
    """
    Args:
        most_seconds: that one measurement may take.
        named: options that the caller decides: they are not searched.
        int8_cache: keys and values in 8 bits are a candidate.

    Raises:
        UsageError: the model's context is too short for anything to be measured.
        ConfigError: keys and values in 8 bits cannot be had with it.
    """
    runtime, positions = llm.plugin.runtime, llm.plugin.config.max_position_embeddings
    assert isinstance(runtime, LocalRuntime)
    ready = runtime.prepared
    ladder = [work for work in WORK[profile] if work.longest <= positions]
    if not ladder:
        raise UsageError(f"{ready.config.model_name} has {positions} positions: too few to tune it")
    trials = Trials(ready, llm.plugin.load_model(), runtime.tokenizer, ready.options, ladder[-1])
    options = {name: getattr(ready.options, name) for name in ENGINE_OPTIONS}
    start = {"threads": torch.get_num_threads(), **options}
    trials.take(_fitting(trials, ladder, start, most_seconds))
    if int8_cache:
        trials.plan({**start, "kv_cache_dtype": "int8"})  # what cannot be had is told, not passed over
    values = _values(ready, trials.workload, int8_cache)
    possible = {name: _possible(trials, start, name, values[name]) for name in values if name not in named}
    axes = tuple(Axis(name, found) for name, found in possible.items() if set(found) - {start[name]})
    return Space(ready, trials, start, axes)


def _fitting(trials: Trials, ladder: list[Workload], start: Setting, most_seconds: float) -> Workload:
    """The largest workload that does not take too long, judged by the smallest."""
    smallest = ladder[-1]
    # On a busy machine one thread may be faster than many.
    took = min(trials.cost({**start, "threads": count}, -2) for count in (start["threads"], 1))
    sizes = {work: took * size_of(work) / size_of(smallest) for work in ladder}
    return next((work for work, seconds in sizes.items() if seconds <= most_seconds), smallest)


def _values(ready: Prepared, workload: Workload, int8_cache: bool) -> dict[str, tuple[Any, ...]]:
    """Cache formats beside "auto" are those that keep as much as that does without a receipt of the checkpoint."""
    exact = ("float32", "bfloat16") if ready.packing.kinds else ("float32",)
    return {
        "threads": () if THREADS_VARIABLE in os.environ else thread_counts(usable_threads()),
        "speculation": _DEPTHS[1:] if ready.predicts else _DEPTHS,
        # Chunks that hold all prompts are all the same.
        "max_num_batched_tokens": tuple(chunk for chunk in _CHUNKS if chunk < workload.prompt_tokens),
        "kv_cache_dtype": ("auto", *exact, *(("int8",) if int8_cache else ())),
        "block_size": _BLOCKS,
    }


def thread_counts(usable: int) -> tuple[int, ...]:
    """All of few; of many 1, and halves of all: 64, 32, 16, 8."""
    if usable <= _MOST_THREAD_COUNTS:
        return tuple(range(1, usable + 1))
    return tuple(sorted({1, *(usable >> shift for shift in range(_MOST_THREAD_COUNTS - 1))} - {0}))


def _possible(trials: Trials, start: Setting, name: str, values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Those that this model and this machine allow and that make a difference."""
    if name == "threads":
        return values
    found = []
    usual = trials.plan(start).kv_dtype
    for value in values:
        try:
            planned = trials.plan({**start, name: value})
        except (ConfigError, ResourceError):
            continue
        if name != "kv_cache_dtype" or value == start[name] or planned.kv_dtype != usual:
            found.append(value)
    return tuple(found)
