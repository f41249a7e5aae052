"""Token embeddings."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from inference_pio.parallel import Shard


class VocabParallelEmbedding(nn.Module):
    """Rows of a table by token id; each rank holds part of the vocabulary and gives zeros for the rest."""

    def __init__(self, vocab_size: int, hidden_size: int, shard: Shard) -> None:
        super().__init__()
        self.shard = shard
        self.rows = shard.part(vocab_size)
        self.first = shard.rank * self.rows
        self.weight = nn.Parameter(torch.empty(self.rows, hidden_size), requires_grad=False)
        self._lookup = self._whole if shard.size == 1 else self._part

    def forward(self, token_ids: Tensor) -> Tensor:
        """[T] int64 -> [T, hidden_size]."""
        return self._lookup(token_ids)

    def _whole(self, token_ids: Tensor) -> Tensor:
        return functional.embedding(token_ids, self.weight)

    def _part(self, token_ids: Tensor) -> Tensor:
        local = token_ids - self.first
        mine = (local >= 0) & (local < self.rows)
        x_TD = functional.embedding(local.where(mine, 0), self.weight) * mine[:, None]
        return self.shard.group.all_reduce(x_TD, self.shard.rank)
