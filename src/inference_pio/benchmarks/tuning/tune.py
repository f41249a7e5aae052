"""Which options are best for a model on this machine: searched for, compared with the defaults, stored."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from inference_pio.benchmarks.samples import Effect
from inference_pio.benchmarks.tuning.search import Found, Move, Search, Setting
from inference_pio.benchmarks.tuning.space import WORK, Space, space_of
from inference_pio.errors import UnavailableError, UsageError
from inference_pio.llm import LLM
from inference_pio.loader.store import ModelStore, is_writable
from inference_pio.runtime.settle import context_of
from inference_pio.runtime.tuned import Tuned, keep_tuned

# Of the time, what comparing the best with the defaults may take; and of the rest, one measurement.
_COMPARING, _ONE_OF = 0.25, 120
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
        UsageError: there is no such profile to tune for, nothing to choose, or `seconds` are out of range or too few.
        InferencePIOError: the model cannot be found, read or run here.
    """
    if profile not in WORK:
        raise UsageError(f"tune measures for {' or '.join(WORK)}, not for {profile!r}")
    if not 1 <= seconds <= 3600:
        raise UsageError(f"seconds must be from 1 to 3600, got {seconds!r}")
    if not is_writable(ModelStore().home):
        raise UnavailableError(
            f"{ModelStore().home} takes no files: there is nowhere to keep what would be measured"
        )
    small = {"max_num_seqs": 1, "max_model_len": min(work.longest for work in WORK[profile])}
    with LLM(model, tuned=False, **{**options, **small}) as llm:
        return _tuned(llm, profile, seconds, int8_cache, report, options)


def _tuned(
    llm: LLM, profile: str, seconds: float, int8_cache: bool, report: Report, named: Mapping[str, Any]
) -> Tuning:
    begin = time.perf_counter()
    threads = torch.get_num_threads()
    try:
        space = space_of(llm, profile, seconds * (1 - _COMPARING) / _ONE_OF, named, int8_cache=int8_cache)
        report(f"measuring {space.trials.workload} for {profile}, {seconds:g} s")
        if not space.axes:
            raise UsageError("nothing is left to choose: every option is named, or has one value only here")
        search, end = Search(space.trials.cost, time.perf_counter), begin + seconds
        found = search.descend(
            space.axes, space.start, end - _COMPARING * seconds, lambda move: report(_said(move))
        )
        if not found.races:
            raise UsageError(
                f"{seconds:g} seconds are too few: there was no time for two rounds of {space.trials.workload}; give "
                f"more of them, or wait until the machine is less busy"
            )
        effect = None
        if found.setting != space.start:
            effect = search.compare(space.start, found.setting, _PAIRS, end)
    finally:
        torch.set_num_threads(threads)
    tuned = _result(llm, space, profile, found, effect)
    return Tuning(tuned, keep_tuned(ModelStore(), tuned), space.start, found, effect)


def _said(move: Move) -> str:
    return f"{move.axis} {move.value}: {move.ratio:.2f} times as fast"


def _result(llm: LLM, space: Space, profile: str, found: Found, effect: Effect | None) -> Tuned:
    """What is stored: the options found where they are faster for certain, else none."""
    context = context_of(space.ready.files, llm.settled.config, llm.settled.options)
    gained = effect is not None and effect.verdict == "faster"
    chosen = {axis.name: found.setting[axis.name] for axis in space.axes} if gained else {}
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
        work=str(space.trials.workload),
    )
