"""Steps whose every row gets logits, recorded once per shape and replayed: what decoding does over and over."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from inference_pio import ops
from inference_pio.engine.config import EngineConfig
from inference_pio.plugin.batch import ForwardBatch

_MAX_TOKENS = 64  # of a step that is worth recording: longer ones are not held up by calls
_MAX_STEPS = 64
_INPUTS = ("token_ids", "positions", "query_start", "seq_lens", "slot_mapping")


class StepReplay:
    """Runs a step by replaying the recording of an earlier one of the same shape; records it the first time.

    A model that calls anything but native operations cannot be recorded: `refused` says what, and every step then runs
    as it is written.
    """

    def __init__(self, forward: Callable[[ForwardBatch], Tensor], config: EngineConfig) -> None:
        self._forward, self._columns = forward, config.blocks_per_sequence
        self._steps: OrderedDict[tuple[int, int], tuple[ForwardBatch, ops.RecordedStep]] = OrderedDict()
        self.refused: str | None = None

    def run(self, batch: ForwardBatch) -> Tensor:
        """Logits of every row; they stay valid until the next step of this shape."""
        tokens, sequences = len(batch.token_ids), len(batch.seq_lens)
        if self.refused is not None or tokens != len(batch.last_token) or tokens > _MAX_TOKENS:
            return self._forward(batch)
        shape = (tokens, sequences)
        if shape not in self._steps:
            return self._record(shape, batch)
        self._steps.move_to_end(shape)
        inputs, step = self._steps[shape]
        self._fill(inputs, batch)
        return step.replay()

    def _record(self, shape: tuple[int, int], batch: ForwardBatch) -> Tensor:
        tables = torch.zeros(shape[1], self._columns, dtype=torch.int32)
        inputs = replace(
            batch,
            token_ids=batch.token_ids.clone(),
            positions=batch.positions.clone(),
            query_start=batch.query_start.clone(),
            seq_lens=batch.seq_lens.clone(),
            block_tables=tables,
            slot_mapping=batch.slot_mapping.clone(),
            last_token=batch.last_token.clone(),
        )
        self._fill(inputs, batch)
        try:
            step = ops.RecordedStep(lambda: self._forward(inputs))
        except ops.CannotRecord as reason:
            self.refused = str(reason)
            return self._forward(batch)
        if len(self._steps) == _MAX_STEPS:
            self._steps.popitem(last=False)
        self._steps[shape] = inputs, step
        return step.result

    @staticmethod
    def _fill(inputs: ForwardBatch, batch: ForwardBatch) -> None:
        for name in _INPUTS:  # numpy's copies of a few numbers cost a tenth of torch's
            getattr(inputs, name).numpy()[...] = getattr(batch, name).numpy()
        inputs.block_tables.numpy()[:, : batch.block_tables.shape[1]] = batch.block_tables.numpy()
