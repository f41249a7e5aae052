"""One model under two sets of options, in turns: what the second changes."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from inference_pio.benchmarks.command import Settings
from inference_pio.benchmarks.impact import compare, memory_note, take_turns
from inference_pio.benchmarks.report import Report
from inference_pio.benchmarks.samples import CONFIDENCE
from inference_pio.benchmarks.workload import Suite
from inference_pio.optimizations.technique import Kind

_KINDS: tuple[Kind, ...] = ("prefill", "decode", "batch")
NAME = "side_by_side"


def measure(suite: Suite, a: Settings, b: Settings, plugin_of_b: str = "") -> Report:
    """Prefill, decode and a batch, each with both in memory at once; rounds are those of `a`.

    Args:
        plugin_of_b: where it is another one than the suite's.
    """
    other = replace(suite, plugin=plugin_of_b or suite.plugin)
    report = Report(NAME, a.model or suite.model)
    for kind in _KINDS:
        workload = a.size(suite.showing(kind))
        with a.load(suite, workload) as first, b.load(other, workload) as second:
            report.model = f"A {first.name}, B {second.name}"
            with_b, with_a = (partial(one.run, workload) for one in (second, first))
            runs = take_turns(a, kind, with_b, with_a, NAME)
            note = memory_note(first, second)
        compare(report, kind, workload, runs, note)
    report.notes.append(
        f"ratio: time of A by time of B, per pair of runs: above 1 B is faster; 'cannot tell' where the "
        f"{CONFIDENCE:.0%} interval of the median holds 1 or there are too few pairs"
    )
    return report
