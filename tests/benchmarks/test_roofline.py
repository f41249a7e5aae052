"""Bounds by hand-made arithmetic, shapes against a file of known sizes, verdicts against records."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from inference_pio.benchmarks.compare import same_machine, verdict
from inference_pio.benchmarks.samples import Summary
from inference_pio.benchmarks.workload import Workload
from inference_pio.loader.tensor_info import TensorInfo
from inference_pio.metrics.rates import Rates
from peers.rows import Bar, Row
from roofline.bound import bound, decode, prefill
from roofline.shapes import Shape, shape_of

# 1000 bytes of weights, 400 + 100 parameters, 8 bytes of keys and values a token, two heads of 3 in one layer.
SHAPE = Shape(weight_bytes=1000, body_parameters=400, head_parameters=100, kv_bytes=8, attention_width=6)


def row(workload: Workload, counts: Any) -> Row:
    return Row("row", "model", "", workload, counts, Bar(None, 1.0))


def test_a_prompt_passes_the_body_with_every_token_and_the_head_with_its_last() -> None:
    step = prefill(Workload(prompt_len=3, output_len=1, concurrency=2), SHAPE)
    assert step.linear == 2 * (6 * 400 + 2 * 100)
    # Token 1 attends to 1, token 2 to 2, token 3 to 3; scores and sums of values, each a multiply-add.
    assert step.attention == 2 * (1 + 2 + 3) * 2 * 2 * 6
    assert step.read_bytes == 1000 + 6 * 8


def test_each_further_token_is_a_step_over_a_longer_context() -> None:
    steps = decode(Workload(prompt_len=3, output_len=3, concurrency=2), SHAPE)
    assert [step.read_bytes for step in steps] == [1000 + 2 * 4 * 8, 1000 + 2 * 5 * 8]
    assert [step.linear for step in steps] == [2 * 2 * 500] * 2
    assert [step.attention for step in steps] == [4 * 2 * 4 * 6, 4 * 2 * 5 * 6]


def test_whichever_takes_longer_bounds() -> None:
    work = row(Workload(prompt_len=3, output_len=2), "output after the first")
    reads_slowly = bound(work, SHAPE, Rates(1, 100.0, 1e9, 1e9))
    assert reads_slowly is not None
    assert (reads_slowly.seconds, reads_slowly.by) == (pytest.approx((1000 + 4 * 8) / 100), "memory")
    computes_slowly = bound(work, SHAPE, Rates(1, 1e9, 10.0, 5.0))
    assert computes_slowly is not None
    # Weights in int8, which is faster here; attention in bfloat16.
    assert computes_slowly.seconds == pytest.approx(2 * 500 / 10 + 4 * 4 * 6 / 5)
    assert computes_slowly.by == "arithmetic"


def test_a_row_is_bounded_by_what_it_counts() -> None:
    machine = Rates(1, 100.0, 1e9, 1e9)
    work = Workload(prompt_len=3, output_len=2)
    seconds = {
        counts: found.seconds
        for counts in ("prompt", "output", "output after the first")
        if (found := bound(row(work, counts), SHAPE, machine))
    }
    assert seconds["output"] == pytest.approx(seconds["prompt"] + seconds["output after the first"])
    assert seconds["prompt"] == pytest.approx(10 + 3 * 8 / 100)
    assert bound(row(work, "start"), SHAPE, machine) is None


@pytest.mark.parametrize("tied", [True, False])
def test_shape_of_a_header(tied: bool) -> None:
    sizes = {
        "token_embd.weight": ((50, 8), 500),
        "blk.0.attn_q.weight": ((8, 8), 40),
        "blk.0.ffn_up.weight": ((20, 8), 90),
        "output_norm.weight": ((8,), 32),
    } | ({} if tied else {"output.weight": ((50, 8), 700)})
    tensors = {name: TensorInfo(name, shape, "Q4_1", nbytes) for name, (shape, nbytes) in sizes.items()}
    metadata = {
        "general.architecture": "some",
        "some.block_count": 3,
        "some.embedding_length": 8,
        "some.attention.head_count": 4,
        "some.attention.head_count_kv": 1,
    }
    shape = shape_of(metadata, tensors)
    assert shape == Shape(
        weight_bytes=40 + 90 + 32 + (500 if tied else 700),
        body_parameters=64 + 160,
        head_parameters=400,
        kv_bytes=2 * 3 * 1 * 2 * 2,
        attention_width=3 * 4 * 2,
    )
    wide = shape_of(metadata | {"some.attention.key_length": 16}, tensors)
    assert (wide.kv_bytes, wide.attention_width) == (2 * 3 * 16 * 2, 3 * 4 * 16)


def summary(*samples: float) -> Summary:
    return Summary.of(samples)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ((100, 101, 102, 99, 100), "same"),
        ((120, 121, 122, 119, 120), "faster"),
        ((80, 81, 82, 79, 80), "slower"),
        ((103, 110, 101, 99, 104), "cannot tell"),  # the intervals overlap
        ((120, 121, 122), "cannot tell"),  # three rounds say too little
    ],
)
def test_verdicts(now: tuple[float, ...], expected: str) -> None:
    then = Summary.read(asdict(summary(99, 100, 100, 101, 102)))
    assert verdict(summary(*now), then)[0] == expected


def test_fewer_seconds_are_faster() -> None:
    word, ratio = verdict(summary(*[2.0] * 5), summary(*[3.0] * 5), less_is_better=True)
    assert (word, ratio) == ("faster", pytest.approx(1.5))


def test_only_the_same_machine_compares() -> None:
    facts = {"cpu": "A", "cores": 2, "threads": 2, "date": "today"}
    assert same_machine(facts, facts | {"date": "yesterday"})
    assert not same_machine(facts, facts | {"threads": 1})
    assert not same_machine(facts, {})
