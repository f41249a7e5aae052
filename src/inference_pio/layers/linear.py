"""Linear maps whose weight is packed for its device as soon as it is loaded."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from inference_pio import ops
from inference_pio.parallel import Shard


class Linear(nn.Module):
    """y = x Wᵀ + b. Divided over ranks by rows of W (its outputs), each rank simply holds fewer of them.

    After loading, `weight` is gone: the packed form takes its place, so that no weight is held twice.

    separated  the parts of a merged weight in blocks, each to be multiplied by itself; None: the product is one
    """

    def __init__(self, in_features: int, out_features: int, *, bias: bool = False) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight: nn.Parameter | None = nn.Parameter(
            torch.empty(out_features, in_features), requires_grad=False
        )
        self.bias = nn.Parameter(torch.empty(out_features), requires_grad=False) if bias else None
        self.packed: ops.PackedWeight | ops.QuantizedWeight | None = None
        self.separated: list[ops.QuantizedWeight] | None = None

    @property
    def merges(self) -> int:
        """How many projections are one product."""
        merged = isinstance(self.packed, ops.QuantizedWeight) and self.separated is None
        return len(self.packed.parts) if merged and isinstance(self.packed, ops.QuantizedWeight) else 1

    def separate(self) -> None:
        """Multiply each part of a merged weight by itself from now on, over the same memory."""
        if isinstance(self.packed, ops.QuantizedWeight) and len(self.packed.parts) > 1:
            self.separated = self.packed.pieces()

    def merge(self) -> None:
        """Multiply all parts at once from now on."""
        self.separated = None

    def finish_loading(self, device: torch.device, dtype: torch.dtype) -> None:  # noqa: ARG002
        if self.weight is not None:
            self.packed = ops.pack_weight(self.weight.data)
            self.weight = None

    def take_quantized(self, pieces: Sequence[ops.Blocks], memory: ops.Slab) -> None:
        self.packed, self.weight = ops.pack_quantized(pieces, memory), None

    def forward(self, x: Tensor) -> Tensor:
        assert self.packed is not None, "weights are not loaded"
        if self.separated is not None:
            return self._one_by_one(x, self.separated)
        return ops.linear(x, self.packed, self.bias)

    def _one_by_one(self, x: Tensor, parts: Sequence[ops.QuantizedWeight]) -> Tensor:
        sizes = [part.out_features for part in parts]
        biases = [None] * len(parts) if self.bias is None else self.bias.split(sizes)
        return torch.cat(
            [ops.linear(x, part, bias) for part, bias in zip(parts, biases, strict=True)], dim=-1
        )


class GatedLinear(Linear):
    """activation(gate(x)) · up(x) (Shazeer 2020, eq. 6); the weight's rows are the gate's and, below them, up's."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = False,
        activation: ops.Activation = "silu",
    ) -> None:
        super().__init__(in_features, 2 * out_features, bias=bias)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        assert self.packed is not None, "weights are not loaded"
        if self.separated is not None:
            return ops.activate_and_mul(self._one_by_one(x, self.separated), self.activation)
        return ops.gated_linear(x, self.packed, self.bias, self.activation)


class RowParallelLinear(Linear):
    """Divided over ranks by columns of W (its inputs); the ranks' results are summed. Rank 0 alone adds the bias."""

    def __init__(self, in_features: int, out_features: int, shard: Shard, *, bias: bool = False) -> None:
        super().__init__(in_features, out_features, bias=bias)
        self.shard = shard

    def forward(self, x: Tensor) -> Tensor:
        return self.shard.group.all_reduce(super().forward(x), self.shard.rank)


class VocabParallelHead(Linear):
    """Logits; each rank holds part of the vocabulary, and the parts are put side by side."""

    def __init__(self, in_features: int, vocab_size: int, shard: Shard) -> None:
        super().__init__(in_features, shard.part(vocab_size))
        self.shard = shard

    def forward(self, x: Tensor) -> Tensor:
        return self.shard.group.all_gather(super().forward(x), self.shard.rank)
