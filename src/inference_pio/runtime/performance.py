"""The standard's `PerformanceMetrics` out of the engine's counters: of one request, and of all since the model was
loaded."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from inference_pio.engine.ledger import Totals, Usage
from inference_pio.engine.updates import EngineStats
from inference_pio.metrics import PerformanceMetrics
from inference_pio.metrics.memory import process_bytes
from inference_pio.metrics.power import Meter, measuring_meter


@dataclass(frozen=True)
class CacheSize:
    """Bytes of a block of the KV cache over all layers, and of one sequence's state; how many blocks there are."""

    block_bytes: int
    sequence_bytes: int
    blocks_total: int


@dataclass(frozen=True)
class Answered:
    """What came back for one request: seconds since it arrived, by the clock of whoever asked.

    started        when it was asked, by `perf_counter`
    seconds        until the last token, or the end without one
    token_counts   of each answer
    """

    started: float
    seconds: float
    token_counts: tuple[int, ...]
    prompt_tokens: int
    cached_tokens: int


def meter_for(device: torch.device) -> Meter:
    """What counts the energy of a model that is there."""
    return measuring_meter([device.index or 0] if device.type == "cuda" else None)


def request_performance(
    answered: Answered, usage: Usage | None, cache: CacheSize | None
) -> PerformanceMetrics:
    """Of one request; `usage` is None where the engine never told of it.

    latency_ms is from its arrival to its last token, throughput its own tokens in that time, memory the process's;
    power its share of what the meter counted while it was computed. In `resource_utilization`:

    time_to_first_token_ms, time_per_token_ms  the latter of its longest answer, from the first token on
    queue_ms            from arrival to the first step
    engine_share        of the time, what the engine spent on it
    cpu_cores_busy      of the process, while it was computed; sequences_per_step and kv_cache_occupancy likewise
    kv_cache_gb         that its answers held when they ended; blocks that answers share count for each
    prefix_hit_share, draft_acceptance  of its prompt's tokens and of its drafts
    """
    made = PerformanceMetrics.unmeasured()
    made.latency_ms = 1000 * answered.seconds
    made.throughput_tokens_per_sec = ratio(sum(answered.token_counts), answered.seconds)
    made.memory_usage_gb = process_bytes() / 1e9
    first, queue = math.nan, math.nan
    if usage is not None:
        made.power_consumption_watts = ratio(usage.joules, usage.metered_seconds)
        if usage.first_token_at is not None:
            first = usage.first_token_at - answered.started
        if usage.started is not None:
            queue = usage.started - usage.arrived
    made.resource_utilization = {
        "time_to_first_token_ms": 1000 * first,
        "time_per_token_ms": 1000 * ratio(answered.seconds - first, max(answered.token_counts) - 1),
        "queue_ms": 1000 * queue,
        "prefix_hit_share": ratio(answered.cached_tokens, answered.prompt_tokens),
        **_engine_side(answered, usage, cache),
    }
    return made


def engine_performance(stats: EngineStats, seconds: float, cache: CacheSize) -> PerformanceMetrics:
    """Of everything in the `seconds` since the model was loaded.

    latency_ms is the mean of the requests that ended by themselves, throughput generated tokens by the seconds in which
    the engine computed (`busy_share` of all). The other figures are means over requests or steps.
    """
    work = stats.work
    made = PerformanceMetrics.unmeasured()
    made.latency_ms = 1000 * ratio(work.request_seconds, work.requests_finished)
    made.throughput_tokens_per_sec = ratio(stats.generation_tokens, work.step_seconds)
    made.memory_usage_gb = process_bytes() / 1e9
    made.power_consumption_watts = ratio(work.joules, work.metered_seconds)
    made.resource_utilization = {
        "time_to_first_token_ms": 1000 * ratio(work.first_token_seconds, work.requests_answering),
        "queue_ms": 1000 * ratio(work.queue_seconds, work.requests_started),
        "step_ms": 1000 * ratio(work.step_seconds, work.steps),
        "tokens_per_step": ratio(work.step_tokens, work.steps),
        "busy_share": ratio(work.step_seconds, seconds),
        "prefix_hit_share": ratio(stats.prefix_hit_tokens, stats.prefix_query_tokens),
        "draft_acceptance": ratio(stats.accepted_draft_tokens, stats.draft_tokens),
        "kv_cache_gb": (stats.blocks_used * cache.block_bytes + stats.num_running * cache.sequence_bytes)
        / 1e9,
        "requests_finished": work.requests_finished,
        "requests_aborted": work.requests_aborted,
        "requests_failed": work.requests_failed,
        **_between(Totals(), work, stats.blocks_total),
    }
    return made


def ratio(amount: float, by: float) -> float:
    """NaN where there is nothing to divide by: not measured."""
    return amount / by if by > 0 else math.nan


def _engine_side(answered: Answered, usage: Usage | None, cache: CacheSize | None) -> dict[str, float]:
    nothing = dict.fromkeys(
        ("engine_share", "draft_acceptance", "kv_cache_gb", *_between(Totals(), Totals(), 1)), math.nan
    )
    if usage is None or (meanwhile := usage.meanwhile) is None:
        return nothing
    held = math.nan
    if cache is not None and usage.closed:
        held = (usage.blocks * cache.block_bytes + len(answered.token_counts) * cache.sequence_bytes) / 1e9
    return nothing | {
        "engine_share": ratio(usage.step_seconds, answered.seconds),
        "draft_acceptance": ratio(usage.accepted_drafts, usage.drafts),
        "kv_cache_gb": held,
        **_between(*meanwhile, cache.blocks_total if cache is not None else 0),
    }


def _between(before: Totals, after: Totals, blocks_total: int) -> dict[str, float]:
    steps = after.steps - before.steps
    return {
        "cpu_cores_busy": ratio(
            after.cpu_seconds - before.cpu_seconds, after.step_seconds - before.step_seconds
        ),
        "sequences_per_step": ratio(after.step_sequences - before.step_sequences, steps),
        "kv_cache_occupancy": ratio(after.step_blocks - before.step_blocks, steps * blocks_total),
    }
