"""Techniques by their registry: what is switched, on which work, and what is said where one cannot be had."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from inference_pio.benchmarks import impact
from inference_pio.benchmarks.command import Settings
from inference_pio.benchmarks.report import Report
from inference_pio.errors import ConfigError
from inference_pio.models.llama.benchmarks.workloads import SUITE
from inference_pio.optimizations.registry import TECHNIQUES
from inference_pio.plugin.runtime import RuntimeOptions


def test_a_technique_is_switched_by_name_with_its_flags_and_options() -> None:
    settings = Settings(options={"enable": ["fused_layer_norm"], "disable": ["kv_int8", "prefix_caching"]})
    technique = TECHNIQUES["kv_int8"]
    on, off = (impact.switched(technique, settings, each) for each in (True, False))
    assert on["enable"] == ["fused_layer_norm", "kv_int8"]
    assert on["disable"] == ["prefix_caching"]
    assert all(on[flag] is True for flag in technique.flags)
    assert off["enable"] == ["fused_layer_norm"]
    assert off["disable"] == ["prefix_caching", "kv_int8"]
    recomputed = impact.switched(TECHNIQUES["recomputation"], Settings(), on=True)
    assert recomputed.items() >= dict(TECHNIQUES["recomputation"].on).items()


def test_one_model_has_it_and_the_other_has_not(tiny_llama: Path) -> None:
    settings = Settings(model=str(tiny_llama), device="cpu", dtype="float32", quick=True)
    workload = settings.size(SUITE.showing("long"))
    at_work = []
    for on in (True, False):
        changes = impact.switched(TECHNIQUES["kv_int8"], settings, on)
        with settings.load(SUITE, workload, changes=changes) as loaded:
            families = loaded.plugin.get_optimization_report()
            facts = {one["name"]: one for family in families for one in family.get("techniques", ())}
            at_work.append(facts["kv_int8"]["status"])
    assert at_work[0] == "active"
    assert at_work[1] != "active"


def test_the_ratio_and_the_planned_memory_are_told(tiny_llama: Path) -> None:
    settings = Settings(model=str(tiny_llama), device="cpu", dtype="float32", quick=True, rounds=1)
    report = Report("optimization_impact", "")
    impact._registered(SUITE, settings, TECHNIQUES["kv_int8"], report)
    [row] = report.rows
    assert row.what == "kv_int8"
    assert row.summary.median > 0
    assert row.note.startswith("cannot tell; ")  # one pair says nothing
    assert "approximate; planned memory" in row.note
    assert report.work["kv_int8"] == str(settings.size(SUITE.showing("long")))


def test_what_cannot_be_had_here_says_why(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ConfigError("enable kv_int8: int8 keys and values cannot be used here: no kernels for it")

    monkeypatch.setattr(Settings, "load", refuse)
    report = Report("optimization_impact", "")
    impact._registered(SUITE, Settings(model=str(tiny_llama)), TECHNIQUES["kv_int8"], report)
    [row] = report.rows
    assert math.isnan(row.summary.median)
    assert row.note == "cannot be used here: no kernels for it"


def test_every_kind_of_work_fits_the_model() -> None:
    kinds = {technique.shows_on for technique in TECHNIQUES.values()}
    for kind in kinds:
        assert SUITE.showing(kind).longest <= 8192
        assert SUITE.within(300).showing(kind).longest <= 300
    assert SUITE.showing("long").known_len >= 2 * RuntimeOptions.attention_budget, "else nothing is left out"
    shared = SUITE.showing("shared")
    assert 0.9 * shared.prompt_len < shared.shared_len < shared.prompt_len
