"""One run against another: slower, same, faster, or cannot tell."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from inference_pio.benchmarks.report import Report, Row
from inference_pio.benchmarks.samples import CONFIDENCE, Summary

Verdict = Literal["slower", "same", "faster", "cannot tell"]

# Less than this is no news: two runs of the same code differ by as much.
SAME = 0.05
_OF_SPEED = ("tok/s", "ms", "s")


def verdict(now: Summary, then: Summary, *, less_is_better: bool = False) -> tuple[Verdict, float]:
    """How `now` stands to `then`, and how many times as good it is.

    The runs are not paired, so their intervals decide: apart, and medians 5 % apart, is faster or slower; so near that
    even their far ends are within 5 % is the same; anything else, or too few rounds, cannot be told.
    """
    if not (now.count and then.count) or min(_least(now), _least(then)) <= 0:
        return "cannot tell", math.nan
    ratio = now.median / then.median
    low, high = now.interval.low / then.interval.high, now.interval.high / then.interval.low
    if less_is_better:
        ratio, low, high = 1 / ratio, 1 / high, 1 / low
    if min(now.interval.confidence, then.interval.confidence) < CONFIDENCE:
        return "cannot tell", ratio
    if low >= 1 - SAME and high <= 1 + SAME:
        return "same", ratio
    if low > 1 and ratio > 1 + SAME:
        return "faster", ratio
    if high < 1 and ratio < 1 - SAME:
        return "slower", ratio
    return "cannot tell", ratio


def _least(summary: Summary) -> float:
    return min(summary.median, summary.interval.low)


def same_machine(now: Mapping[str, Any], then: Mapping[str, Any]) -> bool:
    """Figures of other processors, or of another number of threads, are not comparable."""
    return all(now[fact] == then.get(fact) for fact in ("cpu", "cores", "threads"))


@dataclass(frozen=True)
class Change:
    """One figure of two runs.

    word   faster, slower, same or cannot tell for speeds; better, worse, same or cannot tell for everything else
    ratio  how many times as good it is now; NaN where one side is missing or nothing is better
    why    of a "cannot tell" that the figures themselves do not explain
    """

    benchmark: str
    row: Row
    then: Summary
    now: Summary
    word: str
    ratio: float
    why: str = ""

    @property
    def is_worse(self) -> bool:
        return self.word in ("slower", "worse")


def changes(then: Report, now: Report, why_not: str = "") -> list[Change]:
    """Every figure that both have, in the order of `now`; none can be told where `why_not` says something."""
    if not why_not and now.work != then.work:
        why_not = "other work"
    before = {row.what: row for row in then.rows}
    return [_change(now.benchmark, before[row.what], row, why_not) for row in now.rows if row.what in before]


def _change(benchmark: str, then: Row, now: Row, why_not: str) -> Change:
    a, b = (_certain(row) for row in (then, now))
    word, ratio = verdict(b, a, less_is_better=now.better == "less")
    if not now.better:
        word, ratio = "cannot tell", math.nan
    elif why_not:
        word = "cannot tell"
    why = why_not or ("" if now.better else "neither way is better") or _missing(a, b)
    return Change(benchmark, now, then.summary, now.summary, _word(word, now.unit), ratio, why)


def _missing(then: Summary, now: Summary) -> str:
    gone = [name for name, side in (("then", then), ("now", now)) if not side.count]
    return f"not measured {' and '.join(gone)}" if gone else ""


def _certain(row: Row) -> Summary:
    """One reading of what does not scatter is as good as many."""
    if not row.counted:
        return row.summary
    return replace(row.summary, interval=replace(row.summary.interval, confidence=1.0))


def _word(word: str, unit: str) -> str:
    return word if unit in _OF_SPEED else {"faster": "better", "slower": "worse"}.get(word, word)
