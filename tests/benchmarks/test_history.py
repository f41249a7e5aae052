"""Runs that are kept, found again, and set beside each other."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import pytest

from inference_pio.benchmarks.choices import TaskChoice
from inference_pio.benchmarks.command import Settings
from inference_pio.benchmarks.history import History, diff, folder_name
from inference_pio.benchmarks.records import Record, plain_settings, read_record, read_settings
from inference_pio.benchmarks.report import Report
from inference_pio.benchmarks.samples import Summary
from inference_pio.errors import UsageError
from inference_pio.security import ResourceLimits

MACHINE: dict[str, str | int] = {
    "cpu": "A",
    "cores": 2,
    "threads": 2,
    "torch": "2.13",
    "inference_pio": "0.1",
}


def record(rate: float = 100.0, day: int = 1, **changes: Any) -> Record:
    report = Report("throughput", "tiny", work={"batch": "1 × 4 + 4 tokens"}, environment=dict(MACHINE))
    report.add("output", "tok/s", Summary.of([rate] * 5), "a note")
    report.add("energy", "J/token", math.nan, "not here")
    fields: dict[str, Any] = {
        "version": 1,
        "date": f"2026-11-{day:02}T10:00:00+00:00",
        "model": "Tiny/Llama",
        "plugin": "llama",
        "checkpoint": "0123",
        "options": {},
        "reports": [report],
    }
    return Record(**{**fields, **changes})


def test_what_is_kept_comes_back_as_it_was(tmp_path: Path) -> None:
    history = History(tmp_path)
    kept = history.save(record(options={"kv_cache_dtype": "int8"}))
    assert kept == "tiny--llama/20261101T100000Z"
    found = history.find(kept)
    assert found.options == {"kv_cache_dtype": "int8"}
    [report] = found.reports
    rate, energy = report.rows
    assert rate.summary == Summary.of([100.0] * 5)
    assert (rate.better, rate.note) == ("more", "a note")
    assert math.isnan(energy.summary.median)
    assert math.isnan(report.metrics.latency_ms)
    assert found.as_dict() == record(options={"kv_cache_dtype": "int8"}).as_dict()


def test_two_runs_of_one_second_are_both_kept(tmp_path: Path) -> None:
    history = History(tmp_path)
    names = [history.save(record(rate)) for rate in (1.0, 2.0, 3.0)]
    assert len(set(names)) == 3
    assert [kept for kept, _ in history.records()] == names
    assert history.find("last").reports[0].rows[0].summary.median == 3.0


def test_runs_are_counted_from_the_last_of_one_model(tmp_path: Path) -> None:
    history = History(tmp_path)
    for day, model in ((1, "a"), (2, "b"), (3, "a"), (4, "a")):
        history.save(record(float(day), day, model=model))
    assert [history.find(f"last~{back}").date[8:10] for back in (0, 1, 2)] == ["04", "03", "01"]
    assert history.find("last", "b").date[8:10] == "02"
    with pytest.raises(UsageError, match=r"3 runs of a in .*, none is last~3"):
        history.find("last~3")
    with pytest.raises(UsageError, match="0 runs of c"):
        history.find("last", "c")


@pytest.mark.parametrize("wrong", ["nothing", "a/../../secret", "last~", "last~-1", ""])
def test_what_is_no_run_is_said(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(UsageError, match="no run is called"):
        History(tmp_path).find(wrong)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is not a run"),
        (b"\x00\xff", "is not a run"),
        (b"[]", "is not a run"),
        (b'{"version": 1}', "is not a run"),
        (b'{"version": 9}', "is of version 9"),
        (b"[" * 100_000, "is not a run"),
    ],
)
def test_a_broken_file_is_one_line(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=says) as caught:
        read_record(path)
    assert "\n" not in str(caught.value)


def test_a_broken_run_does_not_hide_the_others(tmp_path: Path) -> None:
    history = History(tmp_path)
    history.save(record())
    (history.folder / "tiny--llama" / "20261102T100000Z.json").write_text("{")
    first, second = history.records()
    assert isinstance(first[1], Record)
    assert isinstance(second[1], str)


@pytest.mark.parametrize(
    ("change", "note"),
    [
        ({"checkpoint": "4567"}, "another checkpoint"),
        ({"options": {"kv_cache_dtype": "int8"}}, "another kv_cache_dtype: (default), now int8"),
    ],
)
def test_other_circumstances_tell_nothing(change: dict[str, Any], note: str) -> None:
    [rate, _], [said] = diff(record(100.0), record(200.0, **change))
    assert (rate.word, said.startswith(note)) == ("cannot tell", True)
    assert rate.ratio == 2.0


def test_another_machine_tells_nothing_and_another_release_is_what_it_is_about() -> None:
    there, newer = record(200.0), record(200.0)
    there.reports[0].environment["threads"] = 1
    newer.reports[0].environment["inference_pio"] = "0.2"
    [rate, _], [said] = diff(record(), there)
    assert (rate.word, rate.why, said.partition(":")[0]) == (
        "cannot tell",
        "another machine",
        "another machine",
    )
    [rate, _], [said] = diff(record(), newer)
    assert (rate.word, said) == ("faster", "inference_pio 0.1, now 0.2")


def test_names_of_folders() -> None:
    assert folder_name("Qwen/Qwen3-0.6B") == "qwen--qwen3-0.6b"
    assert folder_name("../..") == "model"
    assert folder_name("x" * 300) == "x" * 100


def test_settings_pass_to_another_process() -> None:
    settings = Settings(
        model="tiny",
        rounds=3,
        options={"kv_cache_dtype": "int8"},
        limits=ResourceLimits(memory_gb=2.0),
        tasks=TaskChoice(("mmlu",), 5),
    )
    passed = msgspec.json.decode(msgspec.json.encode(plain_settings(settings)))
    assert read_settings(passed) == settings
