"""`bench` on a tiny random llama: what is measured, kept, compared and refused."""

from __future__ import annotations

import io
import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inference_pio.benchmarks import six
from inference_pio.benchmarks.suites import PLACE, by_size, suite_for
from inference_pio.benchmarks.workload import Suite
from inference_pio.cli.progress import round_bars
from inference_pio.errors import PluginError
from inference_pio.plugin.registry import Registry, default_registry
from inference_pio.plugin.runtime import RuntimeOptions
from inference_pio.runtime.opened import open_model
from inference_pio.security import ResourceLimits
from inference_pio.security.held import held_to

QUICK = ("--quick", "--rounds", "1")


def test_a_run_is_shown_kept_and_compared(cli: Any, tiny: Path, home: Path, tmp_path: Path) -> None:
    out = tmp_path / "run.json"
    first = cli("bench", tiny, "throughput", *QUICK, "--out", out)
    assert (first.code, "whole batch" in first.out) == (0, True), first.err
    assert "prompts are shortened to the model's context of 512 tokens" in first.out
    second = json.loads(cli("bench", tiny, "throughput", *QUICK, "--json").out)
    assert second["finished"] is True
    assert [report["benchmark"] for report in second["reports"]] == ["throughput"]
    assert second["reports"][0]["seconds"] > 0
    assert second["options"] == {"quick": True, "rounds": 1}
    kept = json.loads(cli("bench", "history", "--json").out)
    assert [run["benchmarks"] for run in kept] == [["throughput"]] * 2
    assert kept[0]["checkpoint"] == kept[1]["checkpoint"]
    assert len(list((home / "bench" / "tiny").glob("*.json"))) == 2
    compared = json.loads(cli("bench", "diff", out, "last", "--json").out)
    assert compared["notes"] == []
    assert {change["verdict"] for change in compared["changes"]} == {"cannot tell"}  # one round says nothing
    assert "run.json" not in cli("bench", "history").out
    assert cli("bench", "diff", "last~1", "last", "--fail-on", "slower").code == 0


def test_a_file_that_cannot_be_written_is_told_before_anything_is_measured(cli: Any, tmp_path: Path) -> None:
    """There is no such model: it is not looked for."""
    missing = tmp_path / "none" / "run.json"
    cli("bench", "no-such-model", "--out", missing).complains(2, f"there is no folder {tmp_path / 'none'}")
    cli("bench", "no-such-model", "--out", tmp_path).complains(2, "is a folder: name a file in it")


def test_slower_fails_where_it_is_asked_to(cli: Any, tiny: Path, tmp_path: Path) -> None:
    cli("bench", tiny, "throughput", "--quick", "--rounds", "5", "--no-keep", "--out", tmp_path / "now.json")
    run = json.loads((tmp_path / "now.json").read_text())
    for row in run["reports"][0]["rows"]:
        for figure in (row["summary"], row["summary"]["interval"]):
            for name in {"median", "low", "high"} & set(figure):
                figure[name] *= 1000 if row["unit"] == "tok/s" else 0.001
    (tmp_path / "then.json").write_text(json.dumps(run))
    arguments = ("bench", "diff", tmp_path / "then.json", tmp_path / "now.json")
    assert cli(*arguments).code == 0
    assert cli(*arguments, "--fail-on", "slower").code == 1
    assert cli(*reversed(arguments[2:]), "x").code == 2
    assert cli("bench", "diff", arguments[3], arguments[2], "--fail-on", "worse").code == 0
    assert "no runs" in cli("bench", "history").out  # --no-keep


@pytest.mark.slow
def test_options_reach_the_model_and_the_record(cli: Any, tiny: Path) -> None:
    run = json.loads(
        cli(
            "bench", tiny, "memory_usage", *QUICK, "--json", "--kv-cache-dtype", "int8", "--dtype", "float32"
        ).out
    )
    assert run["options"] == {"quick": True, "rounds": 1, "kv_cache_dtype": "int8", "dtype": "float32"}
    rows = {row["what"]: row for row in run["reports"][0]["rows"]}
    # Two layers of two heads of 16, keys and values in a byte each, beside a scale of two for each head.
    assert "144 bytes per token" in rows["KV cache, planned"]["note"]
    assert run["reports"][0]["model"].endswith("(float32, cpu)")


def test_the_list_names_all_six_and_measures_none(cli: Any, tiny: Path, home: Path) -> None:
    listed = json.loads(cli("bench", tiny, "--list", "--json").out)
    assert [one["name"] for one in listed] == [
        *("throughput", "inference_speed", "memory_usage"),
        *("power_efficiency", "optimization_impact", "accuracy"),
    ]
    assert [one["name"] for one in listed if not one["in_a_usual_run"]] == ["optimization_impact", "accuracy"]
    assert "32 × 256 + 128 tokens" in cli("bench", tiny, "--list").out
    assert not (home / "bench").exists()


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (["nonsense"], "no benchmark is called 'nonsense'"),
        (["--rounds", "-1"], "--rounds must be 0 or more"),
        (["accuracy", "--task", "trivia"], "no task is called trivia"),
        (["accuracy", "--limit", "-2"], "must be 0 (the usual number) or more"),
        (["accuracy", "--task", "humaneval"], "--completions"),
        (["--watts-per-core", "nan"], "watts_per_core must be 0 or more"),
        (["throughput", "--max-model-len", "9", "--quick"], "max_model_len 9 is too short"),
        (
            ["throughput", "--quick", "--out", "/nowhere/run.json", "--rounds", "1"],
            "/nowhere/run.json cannot",
        ),
    ],
)
def test_wrong_values_are_one_line(cli: Any, tiny: Path, typed: list[str], says: str) -> None:
    done = cli("bench", tiny, *typed, "--quiet")
    assert done.code == 2
    assert says in done.err.splitlines()[-1]
    assert done.err.splitlines()[-1].startswith("error: ")


def test_bars_move_with_the_rounds_and_are_not_drawn_between(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with round_bars(quiet=False) as report:
        assert report is not None
        report(1, 4, "throughput")
        drawn = len(terminal.getvalue())
        time.sleep(0.3)
        assert len(terminal.getvalue()) == drawn
        report(2, 4, "throughput")
        assert len(terminal.getvalue()) > drawn
    assert "throughput" in terminal.getvalue()
    assert "2/4" in terminal.getvalue()
    with round_bars(quiet=True) as report:
        assert report is None


def test_an_unknown_run_is_one_line(cli: Any) -> None:
    cli("bench", "diff", "last", "last").complains(2, "there are 0 runs")
    cli("bench", "diff", "nothing", "last").complains(2, "no run is called 'nothing'")


@pytest.mark.slow
def test_ctrl_c_shows_and_keeps_what_is_finished(start: Callable[..., Any], tiny: Path, home: Path) -> None:
    process = start(
        "bench", tiny, "throughput", "accuracy", "power_efficiency", *QUICK, "--task", "perplexity"
    )
    for line in process.stdout:
        if "measured on" in line:  # the first report is complete
            break
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "not measured: " in err
    [kept] = (home / "bench" / "tiny").glob("*.json")
    run = json.loads(kept.read_text())
    assert (run["finished"], run["reports"][0]["benchmark"]) == (False, "throughput")


@pytest.mark.slow
def test_an_error_in_a_process_of_its_own_is_told(cli: Any, tiny: Path) -> None:
    with held_to(ResourceLimits(memory_gb=0.001)):  # so that it is not this process that refuses
        done = cli("bench", tiny, "memory_usage", *QUICK, "--memory-gb", "0.001", "--quiet")
    assert done.code == 5
    assert "0.001" in done.err or "limit" in done.err


def test_a_plugin_without_workloads_gets_usual_ones(tiny: Path) -> None:
    with open_model(str(tiny), RuntimeOptions()).checkpoint:
        opened = open_model(str(tiny), RuntimeOptions())
        declared = suite_for("llama", opened)
        assert (declared.suite.plugin, declared.suite.model) == ("llama", "smollm2-135m-instruct")
        bare = suite_for("llama", opened, _Without())
        opened.checkpoint.close()
    assert bare.suite == by_size("llama", 100_000).within(512)
    assert "declares no workloads" in bare.notes[0]


def test_what_is_declared_must_be_a_suite(tiny: Path) -> None:
    with open_model(str(tiny), RuntimeOptions()).checkpoint:
        opened = open_model(str(tiny), RuntimeOptions())
        with pytest.raises(PluginError, match="is not a Suite but str"):
            suite_for("llama", opened, _Wrong())
        opened.checkpoint.close()


@pytest.mark.parametrize(("parameters", "most"), [(10**8, 32), (10**9, 8), (3 * 10**10, 4)])
def test_larger_models_get_less_work(parameters: int, most: int) -> None:
    suite = by_size("any", parameters)
    assert suite.batch.concurrency == most
    assert all(technique.workload.longest <= suite.prefill.longest + 64 for technique in suite.techniques)


def test_every_benchmark_says_what_it_does() -> None:
    suite = by_size("any", 10**8)
    assert all(one.work(suite) and one.question for one in six.SIX)


class _Without(Registry):
    def part(self, name: str, part: str) -> None:  # noqa: ARG002
        return None


class _Wrong(Registry):
    def part(self, name: str, part: str) -> str:  # noqa: ARG002
        return "not a suite"


def test_the_registry_finds_parts_by_convention() -> None:
    registry = Registry(("llama",))
    assert isinstance(registry.part("llama", "benchmarks.workloads:SUITE"), Suite)
    assert registry.part("llama", "no_such.module:ANY") is None
    assert default_registry().part("transformers", PLACE) is None  # the bridge is nobody's architecture
    with pytest.raises(PluginError, match="has no NOTHING"):
        registry.part("llama", "benchmarks.workloads:NOTHING")
    with pytest.raises(PluginError, match="no plugin is called"):
        registry.part("lama", "benchmarks.workloads:SUITE")
