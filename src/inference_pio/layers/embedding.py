"""Token embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from inference_pio import ops
from inference_pio.parallel import Shard


class VocabParallelEmbedding(nn.Module):
    """Rows of a table by token id, times `scale`; each rank holds part of the vocabulary and gives zeros for the rest.

    The scale is rounded to the table's dtype, as is the product; rows that come out of blocks are float32.
    """

    def __init__(self, vocab_size: int, hidden_size: int, shard: Shard, *, scale: float = 1.0) -> None:
        super().__init__()
        self.shard, self.scale = shard, scale
        self.rows = shard.part(vocab_size)
        self.first = shard.rank * self.rows
        self.weight: nn.Parameter | None = nn.Parameter(
            torch.empty(self.rows, hidden_size), requires_grad=False
        )
        self.packed: ops.QuantizedWeight | None = None
        self._lookup = self._whole if shard.size == 1 else self._part

    def take_quantized(self, pieces: Sequence[ops.Blocks], memory: ops.Slab) -> None:
        self.packed, self.weight = ops.pack_quantized(pieces, memory), None
        self._lookup = self._quantized

    def forward(self, token_ids: Tensor) -> Tensor:
        """[T] int64 -> [T, hidden_size]."""
        return self._lookup(token_ids)

    def _quantized(self, token_ids: Tensor) -> Tensor:
        assert self.packed is not None
        return ops.quantized_embedding(token_ids, self.packed, self.scale)

    def _whole(self, token_ids: Tensor) -> Tensor:
        assert self.weight is not None
        return self._scaled(functional.embedding(token_ids, self.weight))

    def _part(self, token_ids: Tensor) -> Tensor:
        assert self.weight is not None
        local = token_ids - self.first
        mine = (local >= 0) & (local < self.rows)
        x_TD = functional.embedding(local.where(mine, 0), self.weight) * mine[:, None]
        return self._scaled(self.shard.group.all_reduce(x_TD, self.shard.rank))

    def _scaled(self, x_TD: Tensor) -> Tensor:
        return x_TD if self.scale == 1 else x_TD * x_TD.new_tensor(self.scale)
