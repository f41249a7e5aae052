"""What each technique is worth: the same work with it and without it, in turns."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence

from inference_pio.benchmarks.command import Settings
from inference_pio.benchmarks.harness import Timed, interleave
from inference_pio.benchmarks.loaded import LoadedModel
from inference_pio.benchmarks.report import Report
from inference_pio.benchmarks.samples import CONFIDENCE, effect
from inference_pio.benchmarks.workload import Suite, Technique, Workload
from inference_pio.outputs import RequestOutput

_ON, _OFF = "with", "without"
Runs = list[Timed[list[RequestOutput]]]


def measure(suite: Suite, settings: Settings) -> Report:
    """Every technique of the suite on its own workload."""
    report = Report("optimization_impact", settings.model or suite.model)
    for technique in suite.techniques:
        if technique.unavailable:
            report.add(technique.name, "×", math.nan, technique.unavailable)
            continue
        workload = settings.size(technique.workload)
        with contextlib.ExitStack() as models:
            with_it = models.enter_context(settings.load(suite, workload))
            report.model = with_it.name
            without_it = (
                models.enter_context(settings.load(suite, workload, without=technique.flag))
                if technique.flag
                else with_it
            )
            runs = _take_turns(technique, workload, with_it, without_it, settings.count(8))
        _add(report, technique, workload, runs)
    report.notes.append(
        f"ratio: time without the technique by time with it, per pair of runs; 'cannot tell' where the "
        f"{CONFIDENCE:.0%} interval of the median holds 1 or there are too few pairs"
    )
    return report


def _take_turns(
    technique: Technique, workload: Workload, with_it: LoadedModel, without_it: LoadedModel, rounds: int
) -> dict[str, Runs]:
    def run_without(turn: int) -> list[RequestOutput]:
        model = without_it.model
        with technique.without(model) if technique.without else contextlib.nullcontext():
            return without_it.run(workload, turn)

    runs = {_ON: lambda turn: with_it.run(workload, turn), _OFF: run_without}
    return interleave(runs, rounds=rounds, warmup=2)


def _add(report: Report, technique: Technique, workload: Workload, runs: dict[str, Runs]) -> None:
    outcome = effect(*([run.seconds for run in runs[name]] for name in (_ON, _OFF)))
    same = _equal_answers(runs[_ON], runs[_OFF])
    note = f"{outcome.verdict}; {workload}; equal answers {same:.0%}"
    report.add(technique.name, "×", outcome.ratio, note)
    report.metrics.resource_utilization[f"{technique.name}: time ratio"] = outcome.ratio.median


def _equal_answers(first: Sequence[Timed[list[RequestOutput]]], second: Runs) -> float:
    """Share of requests whose greedy tokens are the same both ways; rounding alone can part two answers."""
    pairs = [
        one.outputs[0].token_ids == other.outputs[0].token_ids
        for a, b in zip(first, second, strict=True)
        for one, other in zip(a.result, b.result, strict=True)
    ]
    return sum(pairs) / len(pairs)
