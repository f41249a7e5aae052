"""Parameters while their pieces arrive, in any order."""

from __future__ import annotations

import torch
from torch import Tensor

from inference_pio import ops
from inference_pio.loader.packing import Packing
from inference_pio.loader.weight_plan import Piece, Target


class Assembly:
    """A dense parameter."""

    def __init__(self, target: Target, dtype: torch.dtype, device: torch.device) -> None:
        self._target, self._dtype, self._device = target, dtype, device
        self._left = len(target.pieces)
        self._starts = _starts(target)
        self._value: Tensor | None = None

    @property
    def is_complete(self) -> bool:
        return self._left == 0

    def put(self, piece: Piece, part: Tensor) -> None:
        self._left -= 1
        if len(self._target.pieces) == 1 and not self._target.stacked:
            whole = part.to(self._device, self._dtype)
            # A part of a tensor would keep all of it in memory.
            owns = whole.is_contiguous() and whole.untyped_storage().nbytes() == whole.nbytes
            self._value = whole if owns else whole.clone(memory_format=torch.contiguous_format)
            return
        if self._value is None:
            self._value = torch.empty(self._target.shape, dtype=self._dtype, device=self._device)
        slot = self._value[piece.index] if self._target.stacked else self._value
        if piece.shape:
            slot = slot.narrow(0, self._starts[piece.index, piece.order], piece.shape[0])
        slot.copy_(part)

    def value(self) -> Tensor:
        assert self._value is not None
        return self._value


class StackAssembly:
    """A stacked parameter that stays in blocks: `stack`, which lies in `memory`. `left` counts parts to come."""

    def __init__(self, target: Target, packing: Packing, memory: ops.HandsOut) -> None:
        self.left = len(target.pieces)
        first = target.pieces[: self.left // target.depth]
        kinds = packing.kinds[target.name]
        parts = [(kinds[target.place(piece)], piece.shape[0]) for piece in first]
        self.stack = ops.QuantizedStack.empty(target.depth, parts, target.shape[-1], memory)

    def put(self, piece: Piece, blocks: ops.Blocks) -> None:
        self.stack.pack(piece.index, piece.order, blocks)
        self.left -= 1


def _starts(target: Target) -> dict[tuple[int, int], int]:
    """(index, order) of a piece -> its first row: the rows of those above it."""
    starts, row = {}, 0
    for piece in target.pieces:
        row = 0 if piece.order == 0 else row
        starts[piece.index, piece.order] = row
        row += piece.shape[0] if piece.shape else 0
    return starts
