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
_SOME_INPUTS = ("state_slots", "drafts", "rope_positions")  # of models that have them


class _Inputs:
    """A batch of its own that a recording reads, and the same memory as numpy sees it.

    numpy copies a few numbers in a tenth of the time that torch takes.
    """

    def __init__(self, like: ForwardBatch, columns: int) -> None:
        tables = torch.zeros(len(like.seq_lens), columns, dtype=torch.int32)
        names = (*_INPUTS, *(name for name in _SOME_INPUTS if getattr(like, name) is not None))
        own = {name: getattr(like, name).clone() for name in (*names, "last_token")}
        self.batch = replace(like, **own, block_tables=tables)
        self._tables = tables.numpy()
        self._arrays = [(name, own[name].numpy()) for name in names]
        self.fill(like)

    def fill(self, batch: ForwardBatch) -> None:
        for name, array in self._arrays:
            array[...] = getattr(batch, name).numpy()
        self._tables[:, : batch.block_tables.shape[1]] = batch.block_tables.numpy()


class StepReplay:
    """Runs a step by replaying the recording of an earlier one of the same shape; records it the first time.

    A model that calls anything but native operations cannot be recorded: `refused` says what, and every step then runs
    as it is written. Where only several tokens of a sequence at once call for it, only steps of such shapes do.
    """

    def __init__(self, forward: Callable[[ForwardBatch], Tensor], config: EngineConfig) -> None:
        self._forward, self._columns = forward, config.blocks_per_sequence
        self._steps: OrderedDict[tuple[int, int], tuple[_Inputs, ops.RecordedStep]] = OrderedDict()
        self._unrecorded: set[tuple[int, int]] = set()
        self.refused: str | None = None

    def run(self, batch: ForwardBatch) -> Tensor:
        """Logits of every row; they stay valid until the next step of this shape."""
        tokens, shape = len(batch.token_ids), (len(batch.token_ids), len(batch.seq_lens))
        if tokens != len(batch.last_token) or tokens > _MAX_TOKENS:
            return self._forward(batch)
        if batch.observer is not None:
            return self._forward(batch)
        if batch.media is not None or (batch.rope_positions is not None and len(batch.rope_positions) > 1):
            return self._forward(batch)  # a prompt's image: no two such steps are alike
        if self.refused is not None or shape in self._unrecorded:
            return self._forward(batch)
        if shape not in self._steps:
            return self._record(shape, batch)
        self._steps.move_to_end(shape)
        inputs, step = self._steps[shape]
        inputs.fill(batch)
        return step.replay()

    def _record(self, shape: tuple[int, int], batch: ForwardBatch) -> Tensor:
        inputs = _Inputs(batch, self._columns)
        try:
            step = ops.RecordedStep(lambda: self._forward(inputs.batch))
        except ops.CannotRecord as reason:
            tokens, sequences = shape
            if tokens == sequences:
                self.refused = str(reason)
            self._unrecorded.add(shape)
            # A step that has run has moved its sequences' states on: it must not run twice.
            return self._forward(batch) if reason.result is None else reason.result
        if len(self._steps) == _MAX_STEPS:
            self._steps.popitem(last=False)
        self._steps[shape] = inputs, step
        return step.result
