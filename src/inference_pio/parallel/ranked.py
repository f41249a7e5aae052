"""A model divided over ranks that are threads of one process: what a shard plan says, carried out anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import torch
from torch import Tensor, nn

from inference_pio.parallel.group import SimulatedGroup


class RankedModel(nn.Module):
    """Every rank holds its part of the weights and of the cache, runs each step, and has all logits in the end.

    One process with as many threads: it shows that the plan is right and what a rank would hold, not how fast ranks on
    devices of their own would be.

    Args:
        ranks: the models of ranks 0, 1, …, built with shards of `group`.
    """

    def __init__(self, ranks: Sequence[nn.Module], group: SimulatedGroup) -> None:
        super().__init__()
        self.ranks = nn.ModuleList(ranks)
        self.group = group
        self._pool = ThreadPoolExecutor(len(ranks), thread_name_prefix="inference-pio-rank")

    def forward(self, batch: Any, caches: Sequence[Sequence[Any]]) -> Tensor:
        """Logits, as one model gives them; `caches` has for each layer those of all ranks."""
        return next(iter(self._pool.map(lambda rank: self._run(rank, batch, caches), range(len(self.ranks)))))

    @torch.inference_mode()  # which holds for one thread only
    def _run(self, rank: int, batch: Any, caches: Sequence[Sequence[Any]]) -> Tensor:
        logits: Tensor = self.ranks[rank](batch, [each[rank] for each in caches])
        return logits

    def rank_models(self) -> list[nn.Module]:
        return cast("list[nn.Module]", list(self.ranks))
