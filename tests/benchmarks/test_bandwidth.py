"""What a step reads, by hand-made arithmetic, and the share of the machine's rate that follows from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from inference_pio.benchmarks.bandwidth import Reading, decode_reads, read_weight_bytes
from inference_pio.benchmarks.command import Settings
from inference_pio.benchmarks.report import Report
from inference_pio.benchmarks.workload import Workload
from inference_pio.conformance.tiny_tokenizer import VOCAB_SIZE
from inference_pio.loader.store import ModelStore
from inference_pio.metrics import rates
from inference_pio.metrics.rates import Rates
from inference_pio.models.llama.benchmarks import benchmark_inference_speed
from inference_pio.models.llama.benchmarks.workloads import SUITE
from inference_pio.runtime.probe import known_rates, probe

# Of the tiny llama: q and o, k and v, gate, up and down, two norms in each layer; a norm and the head, which is tied.
_LAYER = 2 * 64 * 64 + 2 * 32 * 64 + 3 * 96 * 64 + 2 * 64
_WEIGHTS = 4 * (2 * _LAYER + 64 + VOCAB_SIZE * 64)
_TOKEN = 4 * 2 * 2 * 2 * 16  # float32, layers, keys and values, heads, width


def _measured(tiny_llama: Path) -> Report:
    settings = Settings(model=str(tiny_llama), device="cpu", dtype="float32", quick=True, rounds=1)
    return benchmark_inference_speed.measure(settings)


def test_every_weight_is_read_once(tiny_llama: Path) -> None:
    with Settings(model=str(tiny_llama), device="cpu", dtype="float32").load(SUITE, Workload(4, 2)) as loaded:
        assert read_weight_bytes(loaded.model) == _WEIGHTS
        assert loaded.plan.kv_bytes_per_token == _TOKEN


def test_a_step_reads_the_context_of_every_sequence() -> None:
    reads = decode_reads(Workload(prompt_len=3, output_len=3, concurrency=2), 1000, 8, 30)
    assert reads == [1000 + 2 * (4 * 8 + 30), 1000 + 2 * (5 * 8 + 30)]


def test_the_share_of_the_rate() -> None:
    assert Reading(500.0, 10_000.0).share([0.1, 0.2]).median == pytest.approx(37.5)
    unknown = Reading(0, 0, "nobody looked")
    assert unknown.share([0.1]).count == 0
    assert str(unknown) == "cannot tell: nobody looked"


def test_the_speed_of_one_sequence_beside_the_machines_rate(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFERENCE_PIO_HOME", str(tmp_path))
    monkeypatch.setattr(rates, "measure", lambda threads, cache: Rates(threads, 1e10, 2e11, 1e11))  # noqa: ARG005
    threads, store = torch.get_num_threads(), ModelStore(tmp_path)
    assert known_rates(store, threads) is None
    row = _row(_measured(tiny_llama))
    assert row["summary"]["median"] is None
    assert row["note"].startswith("cannot tell: no rate was measured here with")

    if threads not in {one.threads for one in probe(store).rates}:
        pytest.skip(f"rates are measured with one thread and with all, not with {threads}")
    report = _measured(tiny_llama)
    row, rows = _row(report), {one.what: one for one in report.rows}
    work = SUITE.decode.quick()
    steps = range(work.prompt_len + 1, work.prompt_len + work.output_len)
    read = _WEIGHTS + _TOKEN * sum(steps) / len(steps)
    assert row["summary"]["median"] == pytest.approx(100 * read * rows["decode"].summary.median / 1e10)
    assert row["note"].endswith("this machine 10.0 GB/s at best")


def _row(report: Report) -> dict[str, Any]:
    return next(row for row in report.as_dict()["rows"] if row["what"] == "decode, of the memory's rate")
