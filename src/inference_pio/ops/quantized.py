"""Weights that stay in the blocks of a GGUF file: packed once for the native product, never expanded in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from inference_pio.ops import dispatch, native
from inference_pio.ops.slab import Slab

# By their number in csrc/packed.h.
KINDS = (
    "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "IQ2_XXS",
)  # fmt: skip
# By their number in csrc/kernels.h.
_ACTIVATIONS = ("silu", "gelu_tanh")
GROUP_ROWS = 16  # csrc/packed.h
_NO_CODEBOOK = torch.empty(0, 8, dtype=torch.uint8)


@dataclass(frozen=True)
class Blocks:
    """Rows of a quantised tensor as a file holds them: uint8 [rows, bytes of a row].

    codebook  uint8 [256, 8]: of IQ2_XXS the magnitude (0, 1, 2 for 8, 25, 43) of each value of each grid point
    """

    kind: str
    data: Tensor
    columns: int
    codebook: Tensor = _NO_CODEBOOK


@dataclass(frozen=True)
class QuantizedWeight:
    """A weight [out_features, in_features] in the layout of csrc/packed.h.

    data   uint8: the parts one behind the other
    parts  int64 [n, 2]: kind and rows of each part, in the order of the weight's rows
    halves_match  it is two parts of one kind and size, as a gate and what it gates are
    """

    data: Tensor
    parts: Tensor
    out_features: int
    in_features: int
    halves_match: bool

    @property
    def nbytes(self) -> int:
        return self.data.nbytes

    @property
    def address(self) -> int:
        """Where the weight lies: two with one address share their memory."""
        return self.data.data_ptr()

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        return tuple(KINDS[kind] for kind, _ in self.parts.tolist())

    def pieces(self) -> list[QuantizedWeight]:
        """Each part as a weight of its own, over the same memory."""
        found, first = [], 0
        for kind, rows in self.parts.tolist():
            size = packed_bytes(KINDS[kind], rows, self.in_features)
            data = self.data.narrow(0, first, size)
            found.append(
                QuantizedWeight(
                    data, torch.tensor([[kind, rows]]), rows, self.in_features, halves_match=False
                )
            )
            first += size
        return found

    def some_rows(self, runs: Sequence[tuple[int, int]]) -> QuantizedWeight:
        """Rows [first, end) of each run, copied. The weight has one part; runs begin and end at whole groups, or at the
        weight's end.
        """
        [(kind, rows)] = self.parts.tolist()
        data, parts = [], []
        for first, end in runs:
            begin, stop = (packed_bytes(KINDS[kind], row, self.in_features) for row in (first, end))
            if first % GROUP_ROWS or (end % GROUP_ROWS and end != rows):
                raise ValueError(f"rows {first} to {end} are not whole groups of {GROUP_ROWS}")
            data.append(self.data[begin:stop])
            parts.append((kind, end - first))
        count = sum(rows for _, rows in parts)
        return QuantizedWeight(
            torch.cat(data), torch.tensor(parts), count, self.in_features, halves_match=False
        )

    def dequantize(self) -> Tensor:
        """float32 [out_features, in_features]."""
        rows = [
            _rows(torch.arange(part.out_features), part.data, part.parts, part.in_features)
            for part in self.pieces()
        ]
        return torch.cat(rows)


def can_pack(kind: str) -> bool:
    """Whether weights of this kind of blocks can be multiplied as they are."""
    return native.MISSING is None and kind in KINDS


def packed_bytes(kind: str, rows: int, columns: int) -> int:
    """What `pack_quantized` takes for one part."""
    return int(native.call("packed_bytes", KINDS.index(kind), rows, columns))


def pack_quantized(pieces: Sequence[Blocks], memory: Slab | None = None) -> QuantizedWeight:
    """One weight out of pieces that lie one below the other; their kinds may differ. It lies in `memory`."""
    columns = pieces[0].columns
    parts = [(KINDS.index(piece.kind), piece.data.shape[0]) for piece in pieces]
    sizes = [packed_bytes(piece.kind, piece.data.shape[0], columns) for piece in pieces]
    data = (memory or Slab()).take(sum(sizes))
    for piece, place in zip(pieces, data.split(sizes), strict=True):
        native.call("pack_blocks", piece.data, piece.codebook, KINDS.index(piece.kind), columns, place)
    match = len(parts) == 2 and parts[0] == parts[1]
    return QuantizedWeight(data, torch.tensor(parts), sum(rows for _, rows in parts), columns, match)


def quantized_linear(x_TI: Tensor, weight: QuantizedWeight, bias_O: Tensor | None) -> Tensor:
    """x weightᵀ + bias in x's dtype. Activations are rounded to 8 bits with one scale per 64 columns.

    A row's result is the same, bit for bit, whatever other rows the call has, for any number of threads. Where the
    reference is asked for, the weight is expanded and nothing is rounded.
    """
    x32_TI = x_TI.float().contiguous()
    if dispatch.is_native("matmul"):
        y_TO: Tensor = native.call("linear", x32_TI, weight.data, weight.parts, bias_O)
    else:
        y_TO = F.linear(x32_TI, weight.dequantize(), bias_O)
    return y_TO.to(x_TI.dtype)


def quantized_gated_linear(
    x_TI: Tensor, weight: QuantizedWeight, bias_O: Tensor | None, activation: str = "silu"
) -> Tensor:
    """activation(gate) · up of a weight whose `halves_match`: native, [T, out_features / 2] in x's dtype."""
    x32_TI = x_TI.float().contiguous()
    number = _ACTIVATIONS.index(activation)
    y_TO: Tensor = native.call("gated_linear", x32_TI, weight.data, weight.parts, bias_O, number)
    return y_TO.to(x_TI.dtype)


def quantized_embedding(token_ids_T: Tensor, weight: QuantizedWeight, scale: float = 1.0) -> Tensor:
    """Rows of the weight by token id, times `scale`: float32 [T, in_features]."""
    return _rows(token_ids_T, weight.data, weight.parts, weight.in_features, scale)


def _rows(ids_T: Tensor, data: Tensor, parts: Tensor, columns: int, scale: float = 1.0) -> Tensor:
    rows: Any = native.call("embedding", ids_T, data, parts, _LIKE, columns, scale)
    result: Tensor = rows
    return result


_LIKE = torch.empty(0)
