"""Goodput and percentiles on made-up times, and a trace played to a tiny model."""

from __future__ import annotations

import json
import math
import time

import numpy as np
import pytest

from inference_pio.benchmarks.command import Settings
from inference_pio.benchmarks.replay import (
    Goodput,
    Played,
    Replay,
    Replaying,
    fitting,
    goodput,
    measure,
    percentile,
)
from inference_pio.benchmarks.suites import suite_for
from inference_pio.benchmarks.traces import TraceRequest, read_trace, scaled
from inference_pio.benchmarks.workload import Workload
from inference_pio.errors import UsageError
from inference_pio.plugin.runtime import RuntimeOptions
from inference_pio.runtime.opened import open_model


def played(came: float, ttft: float, tpot: float, total: float, error: str = "") -> Played:
    return Played(came, 10, 5, 0, 0.0, ttft, tpot, total, error)


def test_goodput_counts_what_met_both_targets():
    of = [
        played(0.0, 0.5, 0.05, 1.0),  # both
        played(1.0, 1.5, 0.05, 2.0),  # first token late
        played(2.0, 0.5, 0.15, 3.0),  # tokens slow
        played(3.0, 1.0, 0.1, 5.0),  # just in time
        played(4.0, 0.9, math.nan, 0.9),  # one token alone
        played(4.0, math.nan, math.nan, 6.0, "the model failed"),
    ]
    # Six requests in 4 s; the last ends after 10 s; five are done, three in time.
    assert goodput(of, 6, 4.0, 1000, 100) == Goodput(6 / 4, 5 / 10, 3 / 10, 3 / 6)
    assert goodput(of, 6, 4.0, 1501, 151).good == 5 / 10
    # Interrupted: two more were given, of which nobody knows; they are offered, and no share of anything.
    assert goodput(of, 8, 4.0, 1000, 100) == Goodput(8 / 4, 5 / 10, 3 / 10, 3 / 6)
    assert all(math.isnan(value) for value in vars(goodput([], 0, 0.0, 1000, 100)).values())


@pytest.mark.parametrize("count", [1, 2, 3, 10, 101])
def test_percentiles_are_numpys(count):
    samples = np.random.default_rng(count).lognormal(size=count).tolist()
    for percent in (0, 1, 50, 90, 99, 100):
        assert percentile(samples, percent) == pytest.approx(np.percentile(samples, percent))
    assert math.isnan(percentile([], 50))


def test_what_is_too_long_is_shortened_and_counted():
    requests = [TraceRequest(0.0, 100, 10), TraceRequest(1.0, 100, 30), TraceRequest(2.0, 10, 500)]
    fitted, count = fitting(requests, 120)
    assert fitted == [requests[0], TraceRequest(1.0, 90, 30), TraceRequest(2.0, 60, 60)]
    assert count == 2
    assert fitting(requests, None) == (requests, 0)


@pytest.mark.parametrize("wrong", [{"scale": 0}, {"speed": 0.0}, {"seconds": math.inf}, {"ttft_ms": -1.0}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Replaying("mooncake", **wrong)


@pytest.fixture
def suite(tiny_llama):
    opened = open_model(str(tiny_llama), RuntimeOptions())
    try:
        return suite_for("llama", opened).suite
    finally:
        opened.checkpoint.close()


def of_model(tiny_llama, **options) -> Settings:
    return Settings(model=str(tiny_llama), dtype="float32", options={"max_num_seqs": 16, **options})


def test_a_trace_is_played_at_its_times(tiny_llama, suite):
    asked = Replaying("mooncake", scale=32, speed=40.0, seconds=1.5, ttft_ms=60_000, tpot_ms=60_000)
    requests = asked.requests()
    assert 100 < len(requests) < 500
    started = time.perf_counter()
    outcome = measure(suite, of_model(tiny_llama, block_size=16), asked)
    wall = time.perf_counter() - started
    assert len(outcome.played) == len(requests)
    assert sorted(one.came for one in outcome.played) == [one.seconds for one in requests]
    assert outcome.goodput.share == 1.0
    assert outcome.goodput.good == outcome.goodput.done
    assert outcome.goodput.offered == pytest.approx(len(requests) / requests[-1].seconds)
    for one in outcome.played:
        assert 0 <= one.queue <= one.ttft <= one.total <= wall
        if one.output_tokens > 1:
            assert one.total == pytest.approx(one.ttft + one.tpot * (one.output_tokens - 1), abs=1e-3)
    plain = json.loads(json.dumps(outcome.as_dict(), allow_nan=False))
    rows = {row["what"]: row["summary"]["median"] for row in plain["report"]["rows"]}
    tokens = sum(row["output_tokens"] for row in plain["requests"])
    assert tokens == sum(min(one.output_tokens, 1024) for one in requests)
    lasted = max(row["came"] + row["total"] for row in plain["requests"])
    assert rows["output"] == pytest.approx(tokens / lasted)
    ttft = [1000 * one.ttft for one in outcome.played]
    assert rows["first token, p90"] == pytest.approx(np.percentile(ttft, 90))
    # Prompts share blocks of 16 tokens (512 / 32): as many are found as the requests say, and some must be.
    found = sum(one.cached_tokens for one in outcome.played)
    assert rows["prefix cache"] == pytest.approx(found / sum(one.prompt_tokens for one in outcome.played))
    assert rows["prefix cache"] > 0.02


def test_hashes_seen_before_are_found(tiny_llama, suite):
    requests = [
        TraceRequest(0.0, 1024 // 16, 2, (1, 2)),
        TraceRequest(0.3, 1536 // 16, 2, (1, 2, 3)),
        TraceRequest(0.6, 1024 // 16, 2, (4, 2)),
    ]
    with of_model(tiny_llama, block_size=32).load(suite, Workload(300, 64)) as loaded:
        replay = Replay(loaded, requests, 16)
        replay.run()
    assert [one.cached_tokens for one in replay.played] == [0, 64, 0]


def test_times_count_from_the_trace_however_late_a_request_is_given(tiny_llama, suite):
    """One sequence at a time, all come at once: each waits for those before it."""
    requests = [TraceRequest(0.0, 200, 20) for _ in range(6)]
    with of_model(tiny_llama).load(suite, Workload(300, 64)) as loaded:
        replay = Replay(loaded, requests, 1)
        give = replay._give
        replay._give = lambda started: (time.sleep(0.4) if not replay.given else None, give(started))
        replay.run()
    assert all(one.ttft >= one.queue >= 0.4 for one in replay.played)
    ends = [one.total for one in replay.played]
    assert ends == sorted(ends)


def test_an_interrupt_reports_what_has_ended(tiny_llama, suite):
    asked = Replaying("azure-conv", scale=16, speed=5.0, seconds=60)
    done = []

    def on_round(count: int, total: int, what: str) -> None:
        done.append(count)
        assert count <= total
        if what == "replay" and count >= 5:
            raise KeyboardInterrupt

    settings = of_model(tiny_llama)
    outcome = measure(suite, Settings(**{**vars(settings), "on_round": on_round}), asked)
    assert isinstance(outcome.interrupted, KeyboardInterrupt)
    assert len(outcome.played) == done[-1] < len(scaled(read_trace("azure-conv"), 16))
    assert any(note.startswith("interrupted: ") for note in outcome.report.notes)
