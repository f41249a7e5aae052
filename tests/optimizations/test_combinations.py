"""Pairs of techniques: what the package knows of them is what a run finds, and the engine goes by it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from inference_pio.benchmarks.combinations import PairRuns
from inference_pio.benchmarks.technique_page import renew
from inference_pio.optimizations.combinations import known, names_of
from inference_pio.optimizations.registry import TECHNIQUES

_ROOT = Path(__file__).parents[2]
_SAMPLE = (
    ("flash_attention", "kv_int8"),
    ("prefix_caching", "kv_int4"),
    ("prefix_caching", "recomputation"),
    ("kv_int8", "kv_int4"),
    ("kv_int8", "tensor_paging"),
    ("merged_projections", "tensor_paging"),
    ("tensor_paging", "tensor_parallelism"),
    ("bounded_mlp", "weights_calibrated"),  # the calibration text is not cut
    ("bounded_scores", "kv_int8"),
    ("multi_query_attention", "grouped_query_attention"),
    ("cudnn_benchmark", "kv_int8"),
)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("combinations_script", _ROOT / "benchmarks/combinations.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_every_pair_is_known() -> None:
    """Where this fails a technique has come or gone: run `python benchmarks/combinations.py`."""
    assert known().techniques == list(TECHNIQUES)
    assert list(known().pairs) == [f"{one} {other}" for one, other in names_of(list(TECHNIQUES))]
    assert not [name for name, pair in known().pairs.items() if pair.outcome == "failed"]


def test_what_excludes_each_other_is_known_as_such() -> None:
    for one, other in names_of(list(TECHNIQUES)):
        declared = other in TECHNIQUES[one].conflicts or one in TECHNIQUES[other].conflicts
        pair = known().pair(other, one)
        assert pair is not None
        assert (pair.outcome == "excluded") is declared, (one, other)


def test_the_page_shows_it() -> None:
    page = (_ROOT / "docs/optimisations.md").read_text(encoding="utf-8")
    assert renew(page, known()) == page


@pytest.mark.slow
def test_a_run_finds_it(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERENCE_PIO_HOME", str(tmp_path / "home"))
    tests = PairRuns(script.bases(tmp_path), lambda _: None)
    for one, other in _SAMPLE:
        expected = known().pair(one, other)
        assert expected is not None
        assert tests.pair(one, other).outcome == expected.outcome, (one, other)
