"""A run against a recorded one: slower, same, faster, or cannot tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from inference_pio.benchmarks.samples import CONFIDENCE, Summary

Verdict = Literal["slower", "same", "faster", "cannot tell"]

# Less than this is no news: two runs of the same code differ by as much.
_SAME = 0.05


def verdict(now: Summary, then: Mapping[str, Any], *, less_is_better: bool = False) -> tuple[Verdict, float]:
    """How `now` stands to a recorded figure, and how many times as good it is.

    The runs are not paired, so their intervals decide: apart, and medians 5 % apart, is faster or slower; so near that
    even their far ends are within 5 % is the same; anything else, or too few rounds, cannot be told.
    """
    interval = then["interval"]
    ratio = now.median / then["median"]
    low, high = now.interval.low / interval["high"], now.interval.high / interval["low"]
    if less_is_better:
        ratio, low, high = 1 / ratio, 1 / high, 1 / low
    if min(now.interval.confidence, interval["confidence"]) < CONFIDENCE:
        return "cannot tell", ratio
    if low >= 1 - _SAME and high <= 1 + _SAME:
        return "same", ratio
    if low > 1 and ratio > 1 + _SAME:
        return "faster", ratio
    if high < 1 and ratio < 1 - _SAME:
        return "slower", ratio
    return "cannot tell", ratio


def same_machine(now: Mapping[str, Any], then: Mapping[str, Any]) -> bool:
    """Figures of other processors, or of another number of threads, are not comparable."""
    return all(now[fact] == then.get(fact) for fact in ("cpu", "cores", "threads"))
