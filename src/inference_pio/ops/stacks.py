"""Many weights of one shape that stay in blocks: the experts of a mixture, one behind the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from inference_pio.ops import native
from inference_pio.ops.quantized import KINDS, Blocks, QuantizedWeight, packed_bytes
from inference_pio.ops.slab import HandsOut, Slab


@dataclass(frozen=True)
class QuantizedStack:
    """Weights [entries, out_features, in_features] in the layout of csrc/packed.h.

    data   uint8 [entries, bytes of one]
    parts  int64 [n, 2]: kind and rows of each part of an entry, in the order of its rows; the same for all entries
    """

    data: Tensor
    parts: Tensor
    in_features: int

    @classmethod
    def empty(
        cls, entries: int, parts: Sequence[tuple[str, int]], columns: int, memory: HandsOut | None = None
    ) -> QuantizedStack:
        """Room for weights whose parts have these kinds and rows, to be filled by `pack`; it lies in `memory`."""
        size = sum(packed_bytes(kind, rows, columns) for kind, rows in parts)
        data = (memory or Slab()).take(entries * size).view(entries, size)
        return cls(data, torch.tensor([(KINDS.index(kind), rows) for kind, rows in parts]), columns)

    @property
    def nbytes(self) -> int:
        return self.data.nbytes

    @property
    def address(self) -> int:
        """Where the weights lie."""
        return self.data.data_ptr()

    @property
    def out_features(self) -> int:
        return int(self.parts[:, 1].sum())

    def pack(self, entry: int, part: int, blocks: Blocks) -> None:
        """Fill one part of one entry."""
        stated = [(KINDS[kind], rows) for kind, rows in self.parts.tolist()]
        if (blocks.kind, blocks.data.shape[0], blocks.columns) != (*stated[part], self.in_features):
            raise ValueError(
                f"part {part} is {stated[part]}, not {blocks.kind} of {blocks.data.shape[0]} rows"
            )
        sizes = [packed_bytes(kind, rows, self.in_features) for kind, rows in stated]
        place = self.data[entry].narrow(0, sum(sizes[:part]), sizes[part])
        where = (KINDS.index(blocks.kind), self.in_features, place)
        native.call("pack_blocks", blocks.data, blocks.codebook, *where)

    def of(self, entry: int) -> QuantizedWeight:
        """One of the weights, where it lies."""
        counts = self.parts.tolist()
        match = len(counts) == 2 and counts[0] == counts[1]
        return QuantizedWeight(self.data[entry], self.parts, self.out_features, self.in_features, match)
