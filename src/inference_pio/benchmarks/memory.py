"""Memory as planned from headers against memory as it is."""

from __future__ import annotations

from inference_pio.benchmarks.command import Settings
from inference_pio.benchmarks.report import Report
from inference_pio.benchmarks.workload import Suite
from inference_pio.metrics.memory import peak_process_bytes, process_bytes


def measure(suite: Suite, settings: Settings) -> Report:
    """Load, run the suite's batch and its long prompt once, compare. Meant for a process of its own: the peak counts
    everything that process ever held."""
    batch, prefill = settings.size(suite.batch), settings.size(suite.prefill)
    resident_before = process_bytes()
    with settings.load(suite, batch, prefill) as loaded:
        resident_after = process_bytes()
        for done, workload in enumerate((batch, prefill)):
            settings.on_round(done, 2, "memory_usage")
            loaded.run(workload, 0)
        stats, plan, peak = loaded.plugin.get_memory_stats(), loaded.plan, peak_process_bytes()
        report = Report("memory_usage", loaded.name, work={"batch": str(batch), "prefill": str(prefill)})
        engine = loaded.performance()
    for what, count, note in (
        ("weights, planned", plan.weights, "with the second copies that products want"),
        ("loading, planned", plan.loading, "what reading them holds for a moment"),
        ("weights, loaded", stats["weights_bytes"], "each storage once"),
        ("KV cache, planned", plan.kv_cache, f"{plan.kv_bytes_per_token:,} bytes per token"),
        ("KV cache, reserved", stats["kv_cache_reserved_bytes"], "resident once written"),
        ("process before loading", resident_before, "interpreter and libraries"),
        ("process after loading", resident_after, "resident"),
        ("process, peak", peak, f"after {batch} and {prefill}"),
        ("process, planned", plan.total, "weights, KV cache, activations, logits, libraries"),
    ):
        report.add(what, "GB", count / 1e9, note, counted=True)
    report.add("peak to plan", "", peak / plan.total, "above 1 the plan promised too little", counted=True)
    report.metrics.memory_usage_gb = peak / 1e9
    report.metrics.resource_utilization = {
        "weights_gb": stats["weights_bytes"] / 1e9,
        "kv_cache_reserved_gb": stats["kv_cache_reserved_bytes"] / 1e9,
        "peak_to_plan": peak / plan.total,
    }
    report.metrics.complete(engine)
    return report
