"""Llama's benchmarks: each runs by name, prints what it measured, and says no more than it knows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from inference_pio.benchmarks import impact
from inference_pio.benchmarks.command import Settings
from inference_pio.benchmarks.every_row import every_row
from inference_pio.errors import PluginError, UsageError
from inference_pio.models.llama.benchmarks import benchmark_inference_speed
from inference_pio.models.llama.benchmarks.workloads import SUITE

ROOT = Path(__file__).parents[2]
PACKAGE = "inference_pio.models.llama.benchmarks"


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, check=False, timeout=300
    )


def quick(name: str, model: Path) -> dict[str, Any]:
    """The JSON that a benchmark prints, run as its users run it, warnings as errors."""
    done = run("-W", "error", "-m", f"{PACKAGE}.benchmark_{name}", "--model", str(model), "--quick", "--json")
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    assert result["benchmark"] == name
    assert result["environment"]["threads"] >= 1
    return result


def medians(result: dict[str, Any]) -> dict[str, float | None]:
    return {row["what"]: row["summary"]["median"] for row in result["rows"]}


@pytest.mark.slow
def test_throughput(tiny_llama: Path) -> None:
    result = quick("throughput", tiny_llama)
    found = medians(result)
    # 4 sequences of 16 + 8 tokens: three times as many tokens pass as come out.
    assert found["prompt and output"] == pytest.approx(3 * found["output"], rel=0.2)
    assert result["metrics"]["throughput_tokens_per_sec"] == found["output"]
    assert result["metrics"]["accuracy_score"] is None


@pytest.mark.slow
def test_inference_speed(tiny_llama: Path) -> None:
    found = medians(quick("inference_speed", tiny_llama))
    # 64 prompt tokens until the first token is there.
    assert found["first token, long prompt"] <= 64_000 / found["prefill"]
    assert found["decode"] == pytest.approx(1000 / found["time per token"], rel=0.5)


@pytest.mark.slow
def test_memory_usage(tiny_llama: Path) -> None:
    found = medians(quick("memory_usage", tiny_llama))
    # Per layer: q, k, v, o, three of the feed-forward, two norms; the embedding serves as head; a last norm.
    layer = 64 * 64 * 2 + 2 * 64 * 32 + 3 * 64 * 96 + 2 * 64
    weights = 2 * layer + 272 * 64 + 64
    assert found["weights, loaded"] * 1e9 in (4 * weights, 2 * weights, 2 * (weights + 272 * 64))
    assert found["process before loading"] < found["process, peak"]
    assert found["process, peak"] == pytest.approx(found["peak to plan"] * found["process, planned"])


@pytest.mark.slow
def test_power_efficiency(tiny_llama: Path) -> None:
    result = quick("power_efficiency", tiny_llama)
    energy = [row for row in result["rows"] if row["what"].startswith("energy")]
    assert len(energy) == 2
    for row in energy:
        if row["summary"]["median"] is None:
            assert row["note"].startswith("this machine cannot tell: ")
        else:
            assert row["summary"]["median"] > 0
    assert (result["metrics"]["power_consumption_watts"] is None) == (energy[0]["summary"]["median"] is None)


@pytest.mark.slow
def test_optimization_impact(tiny_llama: Path) -> None:
    wanted = ("fused_layer_norm", "kv_int8", "compiled_step", "needed rows", "native operations, decode")
    report = impact.measure(
        SUITE, Settings(model=str(tiny_llama), device="cpu", quick=True, rounds=1, techniques=wanted)
    )
    assert [row.what for row in report.rows] == list(wanted)
    for row in report.rows:
        assert row.note.startswith("cannot tell; ") if row.summary.count else row.note
    with pytest.raises(UsageError, match="no technique is called magic"):
        impact.measure(SUITE, Settings(techniques=("magic",)))


@pytest.mark.slow
def test_accuracy(tiny_llama: Path) -> None:
    result = quick("accuracy", tiny_llama)
    found = medians(result)
    ratio = found["perplexity, bfloat16"] / found["perplexity, float32"]
    assert found["perplexity ratio"] == pytest.approx(ratio)
    assert ratio == pytest.approx(1, abs=0.2)
    assert 0.5 < found["same best token"] <= 1
    assert result["metrics"]["accuracy_score"] == found["same best token"]


@pytest.mark.slow
def test_errors_are_one_line() -> None:
    done = run("-m", f"{PACKAGE}.benchmark_throughput", "--model", "no-such-model", "--quick")
    assert done.returncode == 4
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_the_profile_of_a_step_adds_up(tiny_llama: Path) -> None:
    done = run(str(ROOT / "benchmarks/profile_step.py"), "--model", str(tiny_llama), "--steps", "2")
    assert done.returncode == 0, done.stderr
    shares = [float(word[:-1]) for word in done.stdout.split() if word.endswith("%")]
    assert sum(shares) == pytest.approx(300, abs=6)  # three tables, the watch's own cost and rounding


def test_a_benchmark_is_a_function_too(tiny_llama: Path) -> None:
    report = benchmark_inference_speed.measure(
        Settings(model=str(tiny_llama), device="cpu", quick=True, rounds=1)
    )
    assert report.metrics.throughput_tokens_per_sec > 0


def test_computing_every_row_changes_nothing_else(tiny_llama: Path) -> None:
    workload = SUITE.techniques[0].workload.quick()
    with Settings(model=str(tiny_llama), device="cpu", dtype="float32").load(SUITE, workload) as loaded:
        rows: list[int] = []
        hook = loaded.model.lm_head.register_forward_pre_hook(lambda _, args: rows.append(args[0].shape[0]))
        usual = [output.outputs[0].token_ids for output in loaded.run(workload, 0)]
        needed, rows[:] = sum(rows), []
        with every_row(loaded.model):
            every = [output.outputs[0].token_ids for output in loaded.run(workload, 1)]
        assert sum(rows) > needed
        hook.remove()
        assert every == [output.outputs[0].token_ids for output in loaded.run(workload, 1)]
        assert every != usual


def test_a_flag_that_is_none_is_refused(tiny_llama: Path) -> None:
    settings = Settings(model=str(tiny_llama), device="cpu")
    with pytest.raises(PluginError, match="use_magic"):
        settings.load(SUITE, SUITE.decode, changes={"use_magic": False})


def test_weights_stay_in_the_format_asked_for(tiny_llama: Path) -> None:
    with Settings(model=str(tiny_llama), device="cpu", dtype="float32").load(SUITE, SUITE.decode) as loaded:
        assert loaded.dtype == torch.float32
        assert loaded.name.endswith("(float32, cpu)")
