"""Joules against a counter that the test turns."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from inference_pio.benchmarks.energy import energy_of, metered
from inference_pio.benchmarks.harness import Timed
from inference_pio.benchmarks.workload import Workload
from inference_pio.metrics.power import EnergyMeter


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
    energy = energy_of([Timed(2.0, 2.0, 30.0), Timed(4.0, 4.0, 40.0), Timed(1.0, 1.0, 20.0)], workload)
    assert energy.joules_per_token.median == 3.0
    assert energy.watts.median == 15.0
    missing = energy_of([Timed(1.0, 1.0, math.nan)], workload)
    assert math.isnan(missing.joules_per_token.median)
    assert math.isnan(missing.watts.median)
