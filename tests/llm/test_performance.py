"""`PerformanceMetrics` of requests and of the engine, against the caller's own clock and counts."""

from __future__ import annotations

import math
import time
from pathlib import Path

import psutil
import pytest

from inference_pio import LLM, PerformanceMetrics, SamplingParams, manage_resources
from inference_pio.engine.ledger import Ledger, Usage
from inference_pio.runtime.performance import Answered, request_performance

GREEDY = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True)
SHARES = ("engine_share", "kv_cache_occupancy", "prefix_hit_share")


def of(output) -> PerformanceMetrics:
    return output.metrics.performance


def prompt_of(number: int, length: int = 40) -> dict[str, list[int]]:
    return {"prompt_token_ids": [3 + (number * 7 + i * i) % 90 for i in range(length)]}


def test_latency_and_throughput_are_what_a_clock_beside_says(llm: LLM) -> None:
    started = time.perf_counter()
    [output] = llm.generate([prompt_of(1)], GREEDY, use_tqdm=False)
    wall = time.perf_counter() - started
    made = of(output)
    assert 0.5 * wall < made.latency_ms / 1000 <= wall
    assert made.throughput_tokens_per_sec * made.latency_ms / 1000 == pytest.approx(24)
    figures = made.resource_utilization
    assert 0 < figures["queue_ms"] < figures["time_to_first_token_ms"] < made.latency_ms
    last = figures["time_to_first_token_ms"] + 23 * figures["time_per_token_ms"]
    assert last == pytest.approx(made.latency_ms)
    assert made.memory_usage_gb == pytest.approx(psutil.Process().memory_info().rss / 1e9, rel=0.2)
    assert all(0 <= figures[name] <= 1 for name in SHARES)
    assert figures["sequences_per_step"] == 1
    assert figures["cpu_cores_busy"] > 0.2
    assert math.isnan(made.accuracy_score)


def test_a_stream_tells_the_same_with_its_last_chunk(llm: LLM) -> None:
    started = time.perf_counter()
    times, told = [], []
    for chunk in llm.stream(prompt_of(2), GREEDY):
        times.append(time.perf_counter() - started)
        told.append(chunk.metrics)
    assert told[:-1] == [None] * (len(told) - 1)
    made = told[-1].performance
    assert made.latency_ms == pytest.approx(1000 * times[-1], abs=30)
    assert made.resource_utilization["time_to_first_token_ms"] == pytest.approx(1000 * times[0], abs=30)


def test_answers_in_a_batch_share_the_engine(llm: LLM) -> None:
    params = SamplingParams(temperature=0.9, seed=1, n=2, max_tokens=24, ignore_eos=True)
    outputs = llm.generate([prompt_of(number) for number in range(10, 14)], params, use_tqdm=False)
    shares = [of(output).resource_utilization for output in outputs]
    for output, figures in zip(outputs, shares, strict=True):
        assert of(output).throughput_tokens_per_sec * of(output).latency_ms / 1000 == pytest.approx(48)
        assert 4 < figures["sequences_per_step"] <= 8
    assert 0.3 < sum(figures["engine_share"] for figures in shares) <= 1.05
    blocks = 2 * math.ceil((40 + 24 - 1) / 16)  # the last token is not in the cache
    bytes_per_block = llm.plugin.runtime.plan.kv_bytes_per_token * 16
    assert shares[0]["kv_cache_gb"] == pytest.approx(blocks * bytes_per_block / 1e9)


def test_what_the_prefix_cache_gave_is_a_share_of_the_prompt(llm: LLM) -> None:
    llm.generate([prompt_of(20)], GREEDY, use_tqdm=False)
    [output] = llm.generate([prompt_of(20)], GREEDY, use_tqdm=False)
    assert output.metrics.num_cached_tokens == 32
    assert of(output).resource_utilization["prefix_hit_share"] == 32 / 40


def test_what_was_not_measured_is_nan(llm: LLM) -> None:
    [output] = llm.generate([prompt_of(30)], SamplingParams(max_tokens=1), use_tqdm=False)
    figures = of(output).resource_utilization
    assert math.isnan(figures["time_per_token_ms"])
    assert math.isnan(figures["draft_acceptance"])
    meter = llm.plugin.runtime._loop._core._ledger._joules
    if meter is None:
        assert math.isnan(of(output).power_consumption_watts)
    plain = of(output).as_dict()
    assert plain["accuracy_score"] is None
    assert plain["resource_utilization"]["draft_acceptance"] is None


def test_a_stop_string_ends_the_figures_too(llm: LLM) -> None:
    [whole] = llm.generate([prompt_of(40)], GREEDY, use_tqdm=False)
    text = whole.outputs[0].text
    [output] = llm.generate(
        [prompt_of(40)], SamplingParams(temperature=0, max_tokens=24, stop=text[3:5]), use_tqdm=False
    )
    counted = len(output.outputs[0].token_ids)
    assert output.outputs[0].finish_reason == "stop"
    assert of(output).throughput_tokens_per_sec * of(output).latency_ms / 1000 == pytest.approx(counted)


def test_everything_since_loading(checkpoint: Path) -> None:
    with LLM(str(checkpoint), dtype="float32", kv_cache_memory_gb=0.02, block_size=16) as fresh:
        nothing = fresh.plugin.get_performance_metrics()
        assert math.isnan(nothing.latency_ms)
        assert math.isnan(nothing.throughput_tokens_per_sec)
        outputs = fresh.generate([prompt_of(number) for number in range(3)], GREEDY, use_tqdm=False)
        made = fresh.plugin.get_performance_metrics()
        latencies = [of(output).latency_ms for output in outputs]
        assert made.latency_ms == pytest.approx(sum(latencies) / 3, rel=0.1)
        assert made.resource_utilization["requests_finished"] == 3
        seconds = fresh.plugin.get_compute_stats()["step_seconds"]
        assert made.throughput_tokens_per_sec * seconds == pytest.approx(3 * 24)
        assert 0 < made.resource_utilization["busy_share"] <= 1
        assert made.resource_utilization["kv_cache_gb"] == 0
        monitored = manage_resources(fresh.plugin, "monitor")["performance"]
        assert monitored["latency_ms"] == made.latency_ms
    assert math.isnan(fresh.plugin.get_performance_metrics().latency_ms)


def test_power_is_the_requests_share_of_what_the_meter_counted() -> None:
    usage = Usage(Ledger(), 0.0)
    answered = Answered(started=0.0, seconds=2.0, token_counts=(8, 4), prompt_tokens=16, cached_tokens=4)
    assert math.isnan(request_performance(answered, usage, None).power_consumption_watts)
    usage.joules, usage.metered_seconds = 6.0, 1.5
    made = request_performance(answered, usage, None)
    assert made.power_consumption_watts == 4.0
    assert made.throughput_tokens_per_sec == 6.0
    never_told = request_performance(answered, None, None)
    assert math.isnan(never_told.power_consumption_watts)
    assert set(never_told.resource_utilization) == set(made.resource_utilization)


def test_what_is_known_is_kept_and_the_rest_taken() -> None:
    mine, other = (
        PerformanceMetrics.unmeasured(),
        PerformanceMetrics(1.0, 2.0, 3.0, math.nan, 5.0, {"a": 1, "b": 2}),
    )
    mine.latency_ms, mine.resource_utilization = 7.0, {"b": 3}
    mine.complete(other)
    assert (mine.latency_ms, mine.throughput_tokens_per_sec, mine.accuracy_score) == (7.0, 2.0, 5.0)
    assert math.isnan(mine.power_consumption_watts)
    assert mine.resource_utilization == {"a": 1, "b": 3}
