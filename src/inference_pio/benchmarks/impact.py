"""What each technique is worth: the same work with it and without it, in turns."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import Any

from inference_pio.benchmarks.command import Settings
from inference_pio.benchmarks.harness import Run, Timed, interleave
from inference_pio.benchmarks.loaded import LoadedModel
from inference_pio.benchmarks.report import Report
from inference_pio.benchmarks.samples import CONFIDENCE, effect
from inference_pio.benchmarks.workload import Suite, Technique, Workload
from inference_pio.errors import ConfigError, ResourceError, UsageError
from inference_pio.metrics.memory import peak_process_bytes
from inference_pio.optimizations.registry import TECHNIQUES
from inference_pio.optimizations.technique import Technique as Registered
from inference_pio.outputs import RequestOutput

ON, OFF = "with", "without"
_WARMUP = 2
Runs = list[Timed[list[RequestOutput]]]


def names(suite: Suite) -> list[str]:
    """Of the rows: the techniques of `inference_pio.optimizations`, then the suite's own."""
    return [*TECHNIQUES, *(technique.name for technique in suite.techniques)]


def measure(suite: Suite, settings: Settings) -> Report:
    """Every technique, or those that the caller names, on the work on which it should show.

    Raises:
        UsageError: the caller names another one.
    """
    report = Report("optimization_impact", settings.model or suite.model)
    if unknown := sorted(set(settings.techniques) - set(names(suite))):
        raise UsageError(f"no technique is called {unknown[0]}; there are {', '.join(names(suite))}")
    wanted = set(settings.techniques or names(suite))
    for registered in TECHNIQUES.values():
        if registered.name in wanted:
            _registered(suite, settings, registered, report)
    for technique in suite.techniques:
        if technique.name not in wanted:
            continue
        if technique.unavailable:
            report.add(technique.name, "×", math.nan, technique.unavailable)
        else:
            _own(suite, settings, technique, report)
    report.metrics.memory_usage_gb = peak_process_bytes() / 1e9
    report.notes.append(
        f"ratio: time without the technique by time with it, per pair of runs; 'cannot tell' where the "
        f"{CONFIDENCE:.0%} interval of the median holds 1 or there are too few pairs"
    )
    return report


def switched(technique: Registered, settings: Settings, on: bool) -> dict[str, Any]:
    """What makes a model run with a technique, whatever a receipt says of it, or without it: fields of
    `RuntimeOptions` and of the model's configuration."""
    name = technique.name
    lists = {
        key: [one for one in settings.options.get(key, ()) if one != name] for key in ("enable", "disable")
    }
    lists["enable" if on else "disable"].append(name)
    flags = dict.fromkeys(technique.flags, True) if on else {}
    return {**flags, **technique.both, **(technique.on if on else technique.off), **lists}


def _registered(suite: Suite, settings: Settings, technique: Registered, report: Report) -> None:
    """Two models, one with it and one without; where it cannot be had here, the reason."""
    workload = settings.size(suite.showing(technique.shows_on))
    with contextlib.ExitStack() as models:
        try:
            with_it, without_it = (
                models.enter_context(
                    settings.load(suite, workload, changes=switched(technique, settings, on))
                )
                for on in (True, False)
            )
        except (ConfigError, ResourceError) as error:
            report.add(technique.name, "×", math.nan, f"cannot be used here: {reason_of(error)}")
            return
        report.model = without_it.name
        runs = take_turns(
            settings,
            technique.name,
            lambda turn: with_it.run(workload, turn),
            lambda turn: without_it.run(workload, turn),
        )
        report.metrics.complete(without_it.performance())
        note = ("" if technique.exact else "; approximate") + memory_note(without_it, with_it)
    compare(report, technique.name, workload, runs, note)


def _own(suite: Suite, settings: Settings, technique: Technique, report: Report) -> None:
    """One model, with and without what the suite takes away from it."""
    workload = settings.size(technique.workload)
    with settings.load(suite, workload) as loaded:
        report.model = loaded.name
        runs = take_turns(
            settings,
            technique.name,
            lambda turn: loaded.run(workload, turn),
            lambda turn: _without(technique, loaded, workload, turn),
        )
        report.metrics.complete(loaded.performance())
    compare(report, technique.name, workload, runs)


def _without(technique: Technique, loaded: LoadedModel, workload: Workload, turn: int) -> list[RequestOutput]:
    with technique.without(loaded.model):
        return loaded.run(workload, turn)


def take_turns(
    settings: Settings,
    name: str,
    with_it: Run[list[RequestOutput]],
    without_it: Run[list[RequestOutput]],
    what: str = "optimization_impact",
) -> dict[str, Runs]:
    """Rounds of both; pairs for `compare`."""
    return interleave(
        {ON: with_it, OFF: without_it},
        rounds=settings.count(8),
        warmup=_WARMUP,
        on_round=settings.on_round,
        what=f"{what}, {name}",
    )


def compare(report: Report, name: str, workload: Workload, runs: dict[str, Runs], more: str = "") -> None:
    """One row: the ratio of each pair's times, the verdict, and how many answers are equal."""
    outcome = effect(*([run.seconds for run in runs[key]] for key in (ON, OFF)))
    same = equal_answers(runs[ON], runs[OFF])
    note = f"{outcome.verdict}; {workload}; equal answers {same:.0%}{more}"
    report.add(name, "×", outcome.ratio, note)
    report.work[name] = str(workload)
    report.metrics.resource_utilization[f"{name}: time ratio"] = outcome.ratio.median


def memory_note(before: LoadedModel, after: LoadedModel) -> str:
    """What the plan of one model says beside that of another, where they differ."""
    planned = [model.plan.total / 1e6 for model in (before, after)]
    return f"; planned memory {planned[0]:,.1f} → {planned[1]:,.1f} MB" if planned[0] != planned[1] else ""


def reason_of(error: ConfigError | ResourceError) -> str:
    """Without the words that name the option, which nobody typed."""
    return str(error).partition("cannot be used here: ")[2] or str(error)


def equal_answers(first: Sequence[Timed[list[RequestOutput]]], second: Runs) -> float:
    """Share of requests whose greedy tokens are the same both ways; rounding alone can part two answers."""
    pairs = [
        one.outputs[0].token_ids == other.outputs[0].token_ids
        for a, b in zip(first, second, strict=True)
        for one, other in zip(a.result, b.result, strict=True)
    ]
    return sum(pairs) / len(pairs)
