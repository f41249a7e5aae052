"""Timing: warm-up, then repeats in which the things compared take turns."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from inference_pio.benchmarks.samples import Summary
from inference_pio.loader.progress import silent

R = TypeVar("R")
OnRound = Callable[[int, int, str], None]
"""Called with the rounds done, all rounds (those to warm up are among both) and what is measured."""
Run = Callable[[int], R]
"""Does the work once. Its argument is the number of the round, from which it draws its input: all runs of a round get
equal input, no two rounds do. Warm-up rounds have negative numbers."""


@dataclass(frozen=True)
class Timed(Generic[R]):
    """One run: wall-clock seconds, CPU seconds of all threads of this process, and what it returned."""

    seconds: float
    cpu_seconds: float
    result: R


def repeat(
    run: Run[R], *, rounds: int, warmup: int = 1, on_round: OnRound = silent, what: str = ""
) -> list[Timed[R]]:
    """`rounds` timed runs of one thing."""
    return interleave({"": run}, rounds=rounds, warmup=warmup, on_round=on_round, what=what)[""]


def interleave(
    runs: Mapping[str, Run[R]],
    *,
    rounds: int,
    warmup: int = 1,
    on_round: OnRound = silent,
    what: str = "",
) -> dict[str, list[Timed[R]]]:
    """Every run once per round, in turns: A B, B A, A B, …

    What changes slowly on the machine (clock, temperature, neighbours) then meets all of them alike, and the turned
    order keeps one from always going first.
    """
    timed: dict[str, list[Timed[R]]] = {name: [] for name in runs}
    on_round(0, warmup + rounds, what)
    for round_number in range(-warmup, rounds):
        order = list(runs) if round_number % 2 == 0 else list(runs)[::-1]
        for name in order:
            one = _timed(runs[name], round_number)
            if round_number >= 0:
                timed[name].append(one)
        on_round(round_number + warmup + 1, warmup + rounds, what)
    return timed


def per_second(amount: float, runs: Sequence[Timed[R]]) -> Summary:
    """A rate, where every run did the same amount of work."""
    return Summary.of([amount / run.seconds for run in runs])


def busy_cores(runs: Sequence[Timed[R]]) -> float:
    """How many cores this process kept busy, on average."""
    return sum(run.cpu_seconds for run in runs) / sum(run.seconds for run in runs)


def _timed(run: Run[R], round_number: int) -> Timed[R]:
    gc.collect()  # what earlier runs left is not this one's cost
    cpu, start = time.process_time(), time.perf_counter()
    result = run(round_number)
    return Timed(time.perf_counter() - start, time.process_time() - cpu, result)
