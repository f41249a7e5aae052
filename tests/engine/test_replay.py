"""Steps that move states on: recorded or not, each of them runs once, at the slots and positions that it names."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from inference_pio import ops
from inference_pio.engine.config import EngineConfig
from inference_pio.engine.replay import StepReplay
from inference_pio.ops import native
from inference_pio.plugin.batch import ForwardBatch

pytestmark = pytest.mark.skipif(native.MISSING is not None, reason=str(native.MISSING))
SLOTS, CHANNELS = 4, 8
CONFIG = EngineConfig(
    max_model_len=64, max_num_seqs=SLOTS, max_num_batched_tokens=64, block_size=16, num_blocks=8
)


def batch(slots: list[int], starts: list[int], counts: list[int]) -> ForwardBatch:
    """Sequences of one token or more, the first of them at position `starts`."""
    ends = torch.tensor([0, *counts]).cumsum(0)
    positions = torch.cat([torch.arange(at, at + count) for at, count in zip(starts, counts, strict=True)])
    return ForwardBatch(
        token_ids=torch.arange(int(ends[-1])),
        positions=positions,
        query_start=ends.int(),
        seq_lens=(torch.tensor(starts) + torch.tensor(counts)).int(),
        block_tables=torch.zeros(len(slots), 1, dtype=torch.int32),
        slot_mapping=positions,
        state_slots=torch.tensor(slots),
        last_token=torch.arange(int(ends[-1])),
        max_query_len=max(counts),
        max_seq_len=64,
    )


class Model:
    """A step is one convolution over the same inputs; `behind` is what comes after it."""

    def __init__(self, behind: Callable[[Tensor, ForwardBatch], Tensor]) -> None:
        rng = torch.Generator().manual_seed(0)
        self.x, self.taps = torch.randn(64, CHANNELS, generator=rng), torch.randn(CHANNELS, 3, generator=rng)
        self.state, self.behind = torch.zeros(SLOTS, 2, CHANNELS), behind

    def __call__(self, step: ForwardBatch) -> Tensor:
        assert step.state_slots is not None
        where = ops.Spans(step.query_start, step.positions, step.state_slots, step.max_query_len)
        out = ops.causal_conv(self.x[: len(step.token_ids)], self.taps, self.state, where)
        return self.behind(out, step)


STEPS = [
    batch([0, 2], [0, 0], [1, 1]),
    batch([2, 0], [1, 1], [1, 1]),
    batch([3, 2], [0, 2], [1, 1]),
    batch([0], [2], [3]),
    batch([1, 3], [0, 1], [1, 1]),
    batch([0], [5], [3]),
]


def same_as_unrecorded(behind: Callable[[Tensor, ForwardBatch], Tensor]) -> StepReplay:
    plain, model = Model(behind), Model(behind)
    replay = StepReplay(model, CONFIG)
    for step in STEPS:
        assert torch.equal(replay.run(step), plain(step))
        assert torch.equal(model.state, plain.state)
    return replay


def test_slots_are_inputs_of_a_recording() -> None:
    replay = same_as_unrecorded(lambda out, _: out)
    assert replay.refused is None
    assert set(replay._steps) == {(2, 2), (3, 1)}


def test_a_step_that_cannot_be_recorded_runs_once() -> None:
    """While it was tried to be recorded it moved its states on."""
    replay = same_as_unrecorded(lambda out, _: out + 1)
    assert replay.refused is not None
    assert "add" in replay.refused
    assert not replay._steps


def test_shapes_that_cannot_be_recorded_leave_the_others_alone() -> None:
    replay = same_as_unrecorded(lambda out, step: out if step.max_query_len == 1 else out + 1)
    assert replay.refused is None
    assert set(replay._steps) == {(2, 2)}


def test_nothing_is_tried_where_operations_run_in_torch() -> None:
    with ops.use("reference"):
        replay = same_as_unrecorded(lambda out, _: out)
    assert replay.refused == "operations run in torch"
