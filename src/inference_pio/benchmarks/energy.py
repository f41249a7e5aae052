"""Joules per token: as the machine counts them, and what of them is above idle; else an estimate that says so."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

from inference_pio.benchmarks.command import Settings
from inference_pio.benchmarks.harness import Run, Timed, busy_cores, per_second
from inference_pio.benchmarks.report import Report
from inference_pio.benchmarks.samples import Summary
from inference_pio.benchmarks.workload import Suite, Workload
from inference_pio.metrics.memory import peak_process_bytes
from inference_pio.metrics.power import CpuTimeEstimate, Meter, measuring_meter


@dataclass(frozen=True)
class Energy:
    """Of all that the meter covers, whatever else ran on it included; missing where it cannot be read.

    above_idle  joules per token beyond what the idle machine would have taken
    """

    joules_per_token: Summary
    above_idle: Summary
    watts: Summary


_MISSING = Energy(Summary.missing(), Summary.missing(), Summary.missing())


def measure(suite: Suite, settings: Settings, meter: Meter | None = None) -> Report:
    """Many sequences at once, and one alone: the same tokens at very different cost."""
    batch, decode = settings.size(suite.batch), settings.size(suite.decode)
    with settings.load(suite, batch, decode) as loaded:
        meter = meter or measuring_meter(gpus_of(loaded.device))
        note = f"this machine cannot tell: {meter.reason}" if meter.reason else meter.covers
        idle = idle_watts(meter, settings.power.idle_seconds)
        report = Report(
            "power_efficiency",
            loaded.name,
            work={"batch": str(batch), "decode": str(decode), "energy of": meter.covers},
        )
        report.add(
            "power, idle", "W", idle, f"watched for {settings.power.idle_seconds:g} s" if idle > 0 else note
        )
        for workload in (batch, decode):
            used = meter if meter.available else CpuTimeEstimate(settings.power.watts_per_core)
            what = f"power_efficiency, {workload}"
            runs = settings.repeat(what, metered(used, partial(loaded.run, workload)), usual=3)
            speed = per_second(workload.output_tokens, runs)
            measured = energy_of(runs, workload, idle) if meter.available else _MISSING
            report.add(f"energy, {workload}", "J/token", measured.joules_per_token, note)
            report.add(f"above idle, {workload}", "J/token", measured.above_idle, note)
            report.add(f"power, {workload}", "W", measured.watts, note)
            if not meter.available:
                guess = energy_of(runs, workload, 0.0)
                report.add(
                    f"estimated energy above idle, {workload}", "J/token", guess.joules_per_token, used.covers
                )
                report.add(f"estimated power above idle, {workload}", "W", guess.watts, used.covers)
            report.add(f"speed, {workload}", "tok/s", speed)
            if workload is batch:
                report.metrics.power_consumption_watts = measured.watts.median
                report.metrics.throughput_tokens_per_sec = speed.median
                report.metrics.latency_ms = 1000 * Summary.of([run.seconds for run in runs]).median
                report.metrics.resource_utilization = {
                    "joules_per_token": measured.joules_per_token.median,
                    "idle_watts": idle,
                    "cpu_cores_busy": busy_cores(runs),
                }
    report.metrics.memory_usage_gb = peak_process_bytes() / 1e9
    report.notes.append(note if meter.reason else f"energy: {note}")
    return report


def idle_watts(meter: Meter, seconds: float) -> float:
    """What the meter counts while this process does nothing; NaN where it cannot be read or nobody waits."""
    if not meter.available or not seconds:
        return math.nan
    start, began = meter.read(), time.perf_counter()
    time.sleep(seconds)
    return meter.joules(start, meter.read()) / (time.perf_counter() - began)


def metered(meter: Meter, run: Run[object]) -> Run[float]:
    """`run`, returning the joules that were used meanwhile; NaN where they cannot be read."""

    def metered_run(turn: int) -> float:
        if not meter.available:
            run(turn)
            return math.nan
        start = meter.read()
        run(turn)
        return meter.joules(start, meter.read())

    return metered_run


def energy_of(runs: Sequence[Timed[float]], workload: Workload, idle: float = math.nan) -> Energy:
    """Per output token, the prompts' share included; `idle` in watts."""
    if any(math.isnan(run.result) for run in runs):
        return _MISSING
    return Energy(
        Summary.of([run.result / workload.output_tokens for run in runs]),
        Summary.missing()
        if math.isnan(idle)
        else Summary.of([(run.result - idle * run.seconds) / workload.output_tokens for run in runs]),
        Summary.of([run.result / run.seconds for run in runs]),
    )


def gpus_of(device: torch.device) -> list[int] | None:
    """The GPU that a model is on; None where it is on none."""
    return [device.index or 0] if device.type == "cuda" else None
