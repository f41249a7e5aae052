"""Matrix products with weights that are laid out once, in the order in which the processor reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from inference_pio.ops.quantized import QuantizedWeight, quantized_linear

# Rows that the packed layout is chosen for. Measured between 1 and 1024: it changes neither layout nor time.
_ROWS_HINT = 32


@dataclass(frozen=True)
class PackedWeight:
    """A weight [out_features, in_features], plain or in oneDNN's blocked layout; only `linear` opens it."""

    tensor: Tensor
    out_features: int
    in_features: int
    blocked: bool

    @property
    def nbytes(self) -> int:
        return self.out_features * self.in_features * self.tensor.dtype.itemsize

    @property
    def address(self) -> int:
        """Where the weight lies: two with one address share their memory."""
        return id(self.tensor) if self.blocked else self.tensor.data_ptr()

    def dense(self) -> Tensor:
        """The weight as it was packed, [out_features, in_features]; a copy where it lies blocked."""
        return self.tensor.to_dense() if self.blocked else self.tensor


def pack_weight(weight_OI: Tensor) -> PackedWeight:
    """Blocked for bfloat16 on a CPU with bfloat16 products, else as it is (nothing is copied then)."""
    out_features, in_features = weight_OI.shape
    blocked = weight_OI.is_cpu and weight_OI.dtype == torch.bfloat16 and _has_bf16_products()
    tensor = weight_OI.detach()
    if blocked:
        tensor = torch.ops.mkldnn._reorder_linear_weight(tensor.contiguous(), _ROWS_HINT)
    return PackedWeight(tensor, out_features, in_features, blocked)


def rows_of(
    packed: PackedWeight | QuantizedWeight, runs: Sequence[tuple[int, int]]
) -> PackedWeight | QuantizedWeight:
    """A weight of the rows [first, end) of each run. Of one in blocks they are whole groups of `GROUP_ROWS`."""
    if isinstance(packed, QuantizedWeight):
        return packed.some_rows(runs)
    if packed.blocked:
        raise ValueError("a weight in oneDNN's layout has no rows to cut out")
    return pack_weight(torch.cat([packed.tensor[first:end] for first, end in runs]))


def linear(x_TI: Tensor, packed: PackedWeight | QuantizedWeight, bias_O: Tensor | None = None) -> Tensor:
    """x weightᵀ + bias: [T, out_features] in x's dtype."""
    if isinstance(packed, QuantizedWeight):
        return quantized_linear(x_TI, packed, bias_O)
    if packed.blocked:
        x = few_shapes(x_TI)
        y_TO: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed.tensor, bias_O, "none", [], "")
        return y_TO[: len(x_TI)]
    return F.linear(x_TI, packed.tensor, bias_O)


def few_shapes(x_TI: Tensor) -> Tensor:
    """Rows of zeros behind those of x, up to a quarter as many, so that it has one of few sizes.

    Products of bfloat16 on a processor are oneDNN's, which makes code for each number of rows that it meets, and keeps
    it: for those between 1 and 512 a gigabyte. Other products are left as they are.
    """
    if x_TI.dtype != torch.bfloat16 or not x_TI.is_cpu:
        return x_TI
    rows = len(x_TI)
    missing = -rows % max(1, (1 << (rows - 1).bit_length()) // 8)
    return F.pad(x_TI, (0, 0, 0, missing)) if missing else x_TI


def _has_bf16_products() -> bool:
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
