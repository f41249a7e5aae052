"""What one user feels: time to the first token, and tokens per second from there on."""

from __future__ import annotations

from functools import partial

from inference_pio.benchmarks.bandwidth import reading
from inference_pio.benchmarks.command import Settings
from inference_pio.benchmarks.harness import busy_cores, per_second
from inference_pio.benchmarks.report import Report
from inference_pio.benchmarks.samples import Summary
from inference_pio.benchmarks.workload import Suite
from inference_pio.metrics.memory import peak_process_bytes


def measure(suite: Suite, settings: Settings) -> Report:
    """Prefill of a long prompt, then decoding of one sequence, nothing else running."""
    prefill, decode = settings.size(suite.prefill), settings.size(suite.decode)
    with settings.load(suite, prefill, decode) as loaded:
        long = settings.repeat("inference_speed, long prompt", partial(loaded.token_times, prefill), usual=7)
        short = settings.repeat("inference_speed, decode", partial(loaded.token_times, decode), usual=7)
        report = Report("inference_speed", loaded.name, work={"prefill": str(prefill), "decode": str(decode)})
        engine, read = loaded.performance(), reading(loaded, decode)
    # From the first token to the last: the prompt's share is not decoding.
    gaps = [(run.result[-1] - run.result[0]) / (len(run.result) - 1) for run in short]
    per_token = Summary.of([1000 * gap for gap in gaps])
    decoded = Summary.of([1 / gap for gap in gaps])
    report.add("prefill", "tok/s", per_second(prefill.prompt_tokens, long), str(prefill))
    report.add("first token, long prompt", "ms", Summary.of([1000 * run.result[0] for run in long]))
    report.add("first token, short prompt", "ms", Summary.of([1000 * run.result[0] for run in short]))
    report.add("decode", "tok/s", decoded, str(decode))
    report.add("decode, of the memory's rate", "%", read.share(gaps), str(read), better="more")
    report.add("time per token", "ms", per_token)
    report.metrics.latency_ms = per_token.median
    report.metrics.throughput_tokens_per_sec = decoded.median
    report.metrics.memory_usage_gb = peak_process_bytes() / 1e9
    report.metrics.resource_utilization = {
        "cpu_cores_busy_prefill": busy_cores(long),
        "cpu_cores_busy_decode": busy_cores(short),
    }
    report.metrics.complete(engine)
    return report
