"""What is printed, and what a missing figure looks like."""

from __future__ import annotations

import io
import json
import math

import pytest
import torch
from rich.console import Console

from inference_pio.benchmarks.report import Report
from inference_pio.benchmarks.samples import Summary


def test_json_says_null_where_nothing_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report("power_efficiency", "tiny")
    report.add("energy", "J/token", math.nan, "this machine cannot tell")
    report.add("speed", "tok/s", Summary.of([1.0, 2.0, 3.0]))
    report.metrics.throughput_tokens_per_sec = 2.0
    report.print(as_json=True)
    data = json.loads(capsys.readouterr().out)
    energy, speed = data["rows"]
    assert energy["summary"]["median"] is None
    assert energy["note"] == "this machine cannot tell"
    assert speed["summary"]["interval"] == {"low": 1.0, "high": 3.0, "confidence": 0.75}
    assert data["metrics"]["power_consumption_watts"] is None
    assert data["metrics"]["throughput_tokens_per_sec"] == 2.0


def test_the_environment_is_this_one() -> None:
    facts = Report("any", "tiny").environment
    assert facts["torch"] == torch.__version__
    assert facts["threads"] == torch.get_num_threads()
    assert {"cpu", "cores", "cpu_kernels", "date", "python", "inference_pio"} <= set(facts)


def test_the_table_shows_figures_spread_and_notes() -> None:
    report = Report("throughput", "tiny (float32, cpu)")
    report.add("output", "tok/s", Summary.of([1234.5, 1300.0, 1200.0]), "32 × 256 + 128 tokens")
    report.add("joules", "J", math.nan)
    report.notes.append("a note of its own")
    shown = io.StringIO()
    report.print_table(Console(file=shown, width=200))
    text = shown.getvalue()
    for part in ("1,234", "1,200 – 1,300", "(75%)", "32 × 256 + 128 tokens", "–", "a note of its own"):
        assert part in text
