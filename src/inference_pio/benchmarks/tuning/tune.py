"""Which options are best for a model on this machine: searched for, compared with the defaults, stored."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from inference_pio.benchmarks.samples import Effect
from inference_pio.benchmarks.tuning.search import Axis, Found, Move, Search, Setting
from inference_pio.benchmarks.tuning.trials import Trials, size_of
from inference_pio.benchmarks.workload import Workload
from inference_pio.errors import ConfigError, ResourceError, UsageError
from inference_pio.llm import LLM
from inference_pio.loader.store import ModelStore
from inference_pio.metrics.hardware import usable_threads
from inference_pio.plugin.runtime import RuntimeOptions
from inference_pio.runtime.local import LocalRuntime
from inference_pio.runtime.prepared import Prepared
from inference_pio.runtime.settle import THREADS_VARIABLE, context_of
from inference_pio.runtime.tuned import Tuned, keep_tuned

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
# Of the time, what comparing the best with the defaults may take; and of the rest, one measurement.
_COMPARING, _ONE_OF = 0.25, 80
_PAIRS = 15
Report = Callable[[str], None]


@dataclass(frozen=True)
class Tuning:
    """effect is that of going from the defaults to what was found; None where nothing better was found."""

    tuned: Tuned
    file: Path
    start: Setting
    found: Found
    effect: Effect | None

    @property
    def gained(self) -> bool:
        return bool(self.tuned.options)


def tune(
    model: str,
    profile: str = "latency",
    seconds: float = 60.0,
    *,
    int8_cache: bool = False,
    report: Report = lambda _: None,
    **options: Any,
) -> Tuning:
    """Search, compare, store.

    Args:
        profile: "latency": one request; "throughput": many at once.
        seconds: for searching and comparing, once the model is loaded.
        int8_cache: also try keys and values in 8 bits, which moves answers a little.
        report: told of progress, in lines.
        options: of `LLM`; what is named is not searched.

    Raises:
        UsageError: there is no such profile to tune for, or `seconds` is out of range.
        InferencePIOError: the model cannot be found, read or run here.
    """
    if profile not in WORK:
        raise UsageError(f"tune measures for {' or '.join(WORK)}, not for {profile!r}")
    if not 1 <= seconds <= 3600:
        raise UsageError(f"seconds must be from 1 to 3600, got {seconds!r}")
    small = {"max_num_seqs": 1, "max_model_len": min(work.longest for work in WORK[profile])}
    with LLM(model, tuned=False, **{**options, **small}) as llm:
        return _tuned(llm, profile, seconds, int8_cache, report, options)


def _tuned(
    llm: LLM, profile: str, seconds: float, int8_cache: bool, report: Report, named: Mapping[str, Any]
) -> Tuning:
    runtime, positions = llm.plugin.runtime, llm.plugin.config.max_position_embeddings
    assert isinstance(runtime, LocalRuntime)
    ready = runtime.prepared
    ladder = [work for work in WORK[profile] if work.longest <= positions]
    if not ladder:
        raise UsageError(
            f"{ready.config.model_name} has {positions} positions: too few for anything to be tuned"
        )
    begin = time.perf_counter()
    threads = torch.get_num_threads()
    trials = Trials(ready, llm.plugin.load_model(), llm.get_tokenizer(), ready.options, ladder[-1])
    start = _start(ready.options, threads)
    try:
        trials.take(_fitting(trials, ladder, start, seconds))
        report(f"measuring {trials.workload} for {profile}, {seconds:g} s")
        search = Search(trials.cost, time.perf_counter)
        axes = _axes(ready, trials, start, named, int8_cache)
        end = begin + seconds
        found = search.descend(axes, start, end - _COMPARING * seconds, lambda move: report(_said(move)))
        effect = None
        if found.setting != start:
            effect = search.compare(start, found.setting, _PAIRS, end)
    finally:
        torch.set_num_threads(threads)
    tuned = _result(llm, ready, profile, trials.workload, axes, found, effect)
    return Tuning(tuned, keep_tuned(ModelStore(), tuned), start, found, effect)


def _start(options: RuntimeOptions, threads: int) -> dict[str, Any]:
    """Where a search begins: what the model runs with by default."""
    names = ("max_num_batched_tokens", "block_size", "kv_cache_dtype", "speculation")
    return {"threads": threads, **{name: getattr(options, name) for name in names}}


def _fitting(trials: Trials, ladder: list[Workload], start: Setting, seconds: float) -> Workload:
    """The largest workload of which enough runs fit, judged by the smallest."""
    smallest = ladder[-1]
    # On a busy machine one thread may be faster than many.
    took = min(
        trials.cost({**start, "threads": count}, -2) for count in (start["threads"], start["threads"], 1)
    )
    most = seconds * (1 - _COMPARING) / _ONE_OF
    return next((work for work in ladder if took * size_of(work) / size_of(smallest) <= most), smallest)


def _axes(
    ready: Prepared, trials: Trials, start: Setting, named: Mapping[str, Any], int8_cache: bool
) -> list[Axis]:
    """What is searched, by what it usually brings: all that the caller left open and that this machine allows."""
    values: dict[str, tuple[Any, ...]] = {
        "threads": () if THREADS_VARIABLE in os.environ else _thread_counts(usable_threads()),
        "speculation": _DEPTHS[1:] if ready.predicts else _DEPTHS,
        # Chunks that hold all prompts are all the same.
        "max_num_batched_tokens": tuple(chunk for chunk in _CHUNKS if chunk < trials.workload.prompt_tokens),
        "kv_cache_dtype": ("auto", *_cache_dtypes(ready, int8_cache)),
        "block_size": _BLOCKS,
    }
    if int8_cache:
        trials.plan({**start, "kv_cache_dtype": "int8"})  # what cannot be had is told, not passed over
    axes = []
    for name, candidates in values.items():
        open_ones = _possible(trials, start, name, candidates)
        if name not in named and set(open_ones) - {start[name]}:
            axes.append(Axis(name, open_ones))
    return axes


def _cache_dtypes(ready: Prepared, int8_cache: bool) -> tuple[str, ...]:
    """Beside "auto": those that keep as much as that does without a receipt of the checkpoint, and what is asked for."""
    return ("float32", *(("bfloat16",) if ready.packing.kinds else ()), *(("int8",) if int8_cache else ()))


def _thread_counts(usable: int) -> tuple[int, ...]:
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


def _said(move: Move) -> str:
    return f"{move.axis} {move.value}: {move.ratio:.2f} times as fast"


def _result(
    llm: LLM,
    ready: Prepared,
    profile: str,
    workload: Workload,
    axes: list[Axis],
    found: Found,
    effect: Effect | None,
) -> Tuned:
    """What is stored: the options found where they are faster for certain, else none."""
    context = context_of(ready.files, llm.settled.config, llm.settled.options)
    gained = effect is not None and effect.verdict == "faster"
    chosen = {axis.name: found.setting[axis.name] for axis in axes} if gained else {}
    ratio = effect.ratio if gained and effect is not None else None
    return Tuned.now(
        fingerprint=context.fingerprint,
        checkpoint=context.checkpoint,
        model=llm.plugin.config.model_name,
        profile=profile,
        dtype=context.dtype,
        device=context.device,
        quantize=context.quantize,
        quality=context.quality,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        options=chosen,
        ratio=ratio.median if ratio else 1.0,
        low=ratio.interval.low if ratio else 1.0,
        high=ratio.interval.high if ratio else 1.0,
        confidence=ratio.interval.confidence if ratio else 0.0,
        work=str(workload),
    )
