"""Tokens per second of many sequences at once."""

from __future__ import annotations

from functools import partial

from inference_pio.benchmarks.command import Settings
from inference_pio.benchmarks.harness import busy_cores, per_second
from inference_pio.benchmarks.report import Report
from inference_pio.benchmarks.samples import Summary
from inference_pio.benchmarks.workload import Suite
from inference_pio.metrics.memory import peak_process_bytes


def measure(suite: Suite, settings: Settings) -> Report:
    """The suite's batch, all requests submitted at once; the clock runs until the last of them has ended."""
    workload = settings.size(suite.batch)
    with settings.load(suite, workload) as loaded:
        runs = settings.repeat("throughput", partial(loaded.run, workload), usual=5)
        report, engine = (
            Report("throughput", loaded.name, work={"batch": str(workload)}),
            loaded.performance(),
        )
    output = per_second(workload.output_tokens, runs)
    report.add("output", "tok/s", output, f"{workload} at once")
    report.add(
        "prompt and output", "tok/s", per_second(workload.prompt_tokens + workload.output_tokens, runs)
    )
    seconds = Summary.of([run.seconds for run in runs])
    report.add("whole batch", "s", seconds)
    report.metrics.throughput_tokens_per_sec = output.median
    report.metrics.latency_ms = 1000 * seconds.median
    report.metrics.memory_usage_gb = peak_process_bytes() / 1e9
    report.metrics.resource_utilization = {"cpu_cores_busy": busy_cores(runs)}
    report.metrics.complete(engine)
    return report
