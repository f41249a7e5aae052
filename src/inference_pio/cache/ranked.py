"""What one layer remembers on all ranks of one process together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from inference_pio.cache.specs import CacheSpec


@dataclass(frozen=True)
class RankedSpec:
    """The specs of one layer's ranks; its cache is a list of theirs, rank 0's first."""

    ranks: tuple[CacheSpec, ...]

    def bytes_per_token(self) -> int:
        return sum(spec.bytes_per_token() for spec in self.ranks)

    def bytes_per_sequence(self) -> int:
        return sum(spec.bytes_per_sequence() for spec in self.ranks)

    def allocate(self, num_blocks: int, block_size: int, num_slots: int, device: torch.device) -> list[Any]:
        return [spec.allocate(num_blocks, block_size, num_slots, device) for spec in self.ranks]
