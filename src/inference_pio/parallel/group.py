"""How ranks exchange results. One process now; ranks can be simulated by threads, to test shard plans anywhere."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor


class ProcessGroup(Protocol):
    """What a sharded layer needs of the other ranks."""

    def all_reduce(self, x: Tensor, rank: int) -> Tensor:
        """The sum of every rank's x."""

    def all_gather(self, x: Tensor, rank: int) -> Tensor:
        """Every rank's x side by side along the last dimension, in rank order."""


class SingleRank:
    """The group of one: nothing to exchange."""

    def all_reduce(self, x: Tensor, rank: int) -> Tensor:  # noqa: ARG002
        return x

    def all_gather(self, x: Tensor, rank: int) -> Tensor:  # noqa: ARG002
        return x


class SimulatedGroup:
    """Ranks as threads of one process: each call waits until every rank has made it."""

    def __init__(self, size: int, timeout_s: float = 60.0) -> None:
        self._parts: list[Tensor | None] = [None] * size
        self._barrier = threading.Barrier(size, timeout=timeout_s)

    def all_reduce(self, x: Tensor, rank: int) -> Tensor:
        return self._exchange(x, rank, lambda parts: torch.stack(parts).sum(0))

    def all_gather(self, x: Tensor, rank: int) -> Tensor:
        return self._exchange(x, rank, lambda parts: torch.cat(parts, dim=-1))

    def _exchange(self, x: Tensor, rank: int, combine: Callable[[list[Tensor]], Tensor]) -> Tensor:
        self._parts[rank] = x
        self._barrier.wait()
        result = combine([part for part in self._parts if part is not None])
        self._barrier.wait()  # nobody may overwrite its part before all have read
        return result


@dataclass(frozen=True)
class Shard:
    """One rank's place: `Shard()` is the whole model."""

    rank: int = 0
    size: int = 1
    group: ProcessGroup = field(default_factory=SingleRank)

    def part(self, total: int) -> int:
        """How many of `total` units this rank holds; units that ranks outnumber are replicated."""
        if total % self.size == 0:
            return total // self.size
        if self.size % total == 0:
            return 1
        raise ValueError(f"{total} units cannot be divided over {self.size} ranks")
