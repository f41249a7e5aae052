"""Joules against a counter that the test turns."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest

from inference_pio.benchmarks import energy
from inference_pio.benchmarks.choices import PowerChoice
from inference_pio.benchmarks.command import Settings
from inference_pio.benchmarks.energy import energy_of, idle_watts, metered
from inference_pio.benchmarks.harness import Timed
from inference_pio.benchmarks.workload import Workload
from inference_pio.metrics.power import EnergyMeter, Sum
from inference_pio.models.llama.benchmarks.workloads import SUITE


def test_the_meter_is_read_around_the_run(tmp_path: Path) -> None:
    zone = tmp_path / "intel-rapl:0"
    zone.mkdir()
    counter = zone / "energy_uj"
    counter.write_text("1000000")
    (zone / "max_energy_range_uj").write_text("9000000")
    joules = metered(EnergyMeter(tmp_path), lambda turn: counter.write_text(str(1_000_000 + turn)))
    assert joules(2_500_000) == pytest.approx(2.5)


def test_without_counters_the_run_happens_and_says_nothing(tmp_path: Path) -> None:
    turns: list[int] = []
    assert math.isnan(metered(EnergyMeter(tmp_path), turns.append)(3))
    assert turns == [3]


def test_energy_per_token_and_power() -> None:
    workload = Workload(prompt_len=8, output_len=5, concurrency=2)
    found = energy_of([Timed(2.0, 2.0, 30.0), Timed(4.0, 4.0, 40.0), Timed(1.0, 1.0, 20.0)], workload)
    assert found.joules_per_token.median == 3.0
    assert found.watts.median == 15.0
    missing = energy_of([Timed(1.0, 1.0, math.nan)], workload)
    assert math.isnan(missing.joules_per_token.median)
    assert math.isnan(missing.watts.median)


def test_what_the_idle_machine_takes_is_subtracted() -> None:
    workload = Workload(prompt_len=8, output_len=5, concurrency=2)
    runs = [Timed(2.0, 2.0, 30.0), Timed(4.0, 4.0, 60.0)]
    found = energy_of(runs, workload, idle=5.0)
    assert found.joules_per_token.median == pytest.approx(4.5)
    assert found.above_idle.median == pytest.approx(3.0)  # (30 - 10) / 10 and (60 - 20) / 10
    assert math.isnan(energy_of(runs, workload).above_idle.median)


def test_the_idle_machine_is_watched(tmp_path: Path) -> None:
    class Counter:
        covers, available, reason = "a clock", True, ""

        def read(self) -> float:
            return time.perf_counter()

        def joules(self, start: float, end: float) -> float:
            return 7 * (end - start)

    assert idle_watts(Counter(), 0.05) == pytest.approx(7, rel=0.05)
    assert math.isnan(idle_watts(Counter(), 0))
    assert math.isnan(idle_watts(EnergyMeter(tmp_path), 1))


def test_where_nothing_is_counted_an_estimate_says_so_and_the_record_stays_empty(tiny_llama: Path) -> None:
    nothing = Sum([])
    nothing.reason = "no counters"
    settings = Settings(
        model=str(tiny_llama), device="cpu", quick=True, rounds=1, power=PowerChoice(watts_per_core=10.0)
    )
    report = energy.measure(SUITE, settings, nothing)
    rows = {(row.what.partition(",")[0], row.unit): row for row in report.rows}
    assert rows["energy", "J/token"].summary.count == rows["power", "W"].summary.count == 0
    assert rows["energy", "J/token"].note == "this machine cannot tell: no counters"
    guess = rows["estimated power above idle", "W"]
    assert guess.note.startswith("estimate, not measured: 10 W per busy core")
    # Watts per busy core times busy cores, and the joules of a token times tokens per second.
    speed = [row for row in report.rows if row.what.startswith("speed")][-1].summary.median
    joules = rows["estimated energy above idle", "J/token"].summary.median
    assert guess.summary.median == pytest.approx(joules * speed)
    assert 0 < guess.summary.median <= 10.5 * 64
    assert math.isnan(report.metrics.power_consumption_watts)
