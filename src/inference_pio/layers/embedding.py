"""Token embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from inference_pio import ops
from inference_pio.parallel import Shard


class VocabParallelEmbedding(nn.Module):
    """Rows of a table by token id; each rank holds part of the vocabulary and gives zeros for the rest."""

    def __init__(self, vocab_size: int, hidden_size: int, shard: Shard) -> None:
        super().__init__()
        self.shard = shard
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
        return ops.quantized_embedding(token_ids, self.packed)

    def _whole(self, token_ids: Tensor) -> Tensor:
        assert self.weight is not None
        return functional.embedding(token_ids, self.weight)

    def _part(self, token_ids: Tensor) -> Tensor:
        assert self.weight is not None
        local = token_ids - self.first
        mine = (local >= 0) & (local < self.rows)
        x_TD = functional.embedding(local.where(mine, 0), self.weight) * mine[:, None]
        return self.shard.group.all_reduce(x_TD, self.shard.rank)
