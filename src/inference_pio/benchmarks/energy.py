"""Joules per token, where the processor counts its energy and lets us read it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from inference_pio.benchmarks.command import Settings
from inference_pio.benchmarks.harness import Run, Timed, per_second
from inference_pio.benchmarks.report import Report
from inference_pio.benchmarks.samples import Summary
from inference_pio.benchmarks.workload import Suite, Workload
from inference_pio.metrics.power import EnergyMeter


@dataclass(frozen=True)
class Energy:
    """Of processor packages, everything else that ran on them included; missing where it cannot be read."""

    joules_per_token: Summary
    watts: Summary


def measure(suite: Suite, settings: Settings, meter: EnergyMeter | None = None) -> Report:
    """Many sequences at once, and one alone: the same tokens at very different cost."""
    meter = meter or EnergyMeter()
    batch, decode = settings.size(suite.batch), settings.size(suite.decode)
    note = meter.reason and f"this machine cannot tell: {meter.reason}"
    with settings.load(suite, batch, decode) as loaded:
        report = Report("power_efficiency", loaded.name)
        for workload in (batch, decode):
            runs = settings.repeat(
                f"power_efficiency, {workload}", metered(meter, partial(loaded.run, workload)), usual=3
            )
            energy = energy_of(runs, workload)
            report.add(f"energy, {workload}", "J/token", energy.joules_per_token, note)
            report.add(f"power, {workload}", "W", energy.watts, note)
            speed = per_second(workload.output_tokens, runs)
            report.add(f"speed, {workload}", "tok/s", speed)
            if workload is batch:
                report.metrics.power_consumption_watts = energy.watts.median
                report.metrics.throughput_tokens_per_sec = speed.median
                report.metrics.resource_utilization = {"joules_per_token": energy.joules_per_token.median}
    report.notes += [note] if note else []
    return report


def metered(meter: EnergyMeter, run: Run[object]) -> Run[float]:
    """`run`, returning the joules that were used meanwhile; NaN where they cannot be read."""

    def metered_run(turn: int) -> float:
        if not meter.available:
            run(turn)
            return math.nan
        start = meter.read()
        run(turn)
        return meter.joules(start, meter.read())

    return metered_run


def energy_of(runs: Sequence[Timed[float]], workload: Workload) -> Energy:
    """Per output token, the prompts' share included."""
    if any(math.isnan(run.result) for run in runs):
        return Energy(Summary.missing(), Summary.missing())
    return Energy(
        Summary.of([run.result / workload.output_tokens for run in runs]),
        Summary.of([run.result / run.seconds for run in runs]),
    )
