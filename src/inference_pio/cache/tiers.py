"""Where blocks of prefixes go that memory has no room for, and how one becomes bytes and a block again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inference_pio.errors import PluginError

BlockData = NDArray[np.uint8]
"""[bytes of a block] uint8: what all layers keep of its tokens."""


@dataclass(frozen=True)
class StoredBlock:
    """A full block under its prefix's digest; `parent` is the digest of the prefix before it."""

    digest: bytes
    parent: bytes
    token_ids: Sequence[int]
    data: BlockData


class PrefixTier(Protocol):
    """The seam: blocks outside of the cache's memory, found by the digest of their prefix.

    It may lose blocks at any time and gives none that is not exactly what was stored: whatever is wrong with it is a
    block that is not there, never an error of a request.

    limit_bytes  what all blocks may take
    """

    limit_bytes: int

    @property
    def generation(self) -> bytes:
        """Enters the digests of all blocks; another one after `forget`."""

    def load(self, parent: bytes, digests: Sequence[bytes]) -> Iterator[BlockData]:
        """What is here of a chain of blocks behind `parent`, up to the first that is not; each until the next is asked
        for.
        """

    def following(self, parent: bytes) -> list[list[int]]:
        """Token ids of the blocks that are known to follow that prefix; to explain what was not found."""

    def store(self, block: StoredBlock, *, wait: bool = False) -> None:
        """Keep a block, in time. Who cannot wait is never made to: the block is not kept if too much is underway."""

    def forget(self) -> None:
        """Let go of everything."""

    def close(self) -> None:
        """Finish what is underway; twice is fine."""


class BlockBytes:
    """Blocks of all layers' caches as bytes.

    Raises:
        PluginError: a cache is not a dataclass of tensors whose first dimension counts blocks.
    """

    def __init__(self, caches: Sequence[Any], num_blocks: int) -> None:
        self._views = [
            tensor.view(num_blocks, -1).view(torch.uint8)
            for cache in caches
            for tensor in _tensors(cache, num_blocks)
        ]
        self._sizes = [view.shape[1] for view in self._views]

    @property
    def nbytes(self) -> int:
        """Of one block."""
        return sum(self._sizes)

    def read(self, block: int) -> BlockData:
        """A copy."""
        data: BlockData = torch.cat([view[block] for view in self._views]).cpu().numpy()
        return data

    def write(self, block: int, data: BlockData) -> None:
        """Make a block hold what was read."""
        for view, piece in zip(self._views, torch.from_numpy(data).split(self._sizes), strict=True):
            view[block].copy_(piece)


def _tensors(cache: Any, num_blocks: int) -> list[Tensor]:
    if isinstance(cache, list):  # of several ranks
        return [tensor for each in cache for tensor in _tensors(each, num_blocks)]
    values = [getattr(cache, field.name) for field in fields(cache)] if is_dataclass(cache) else []
    tensors = [value for value in values if isinstance(value, Tensor)]
    if not tensors or any(len(tensor) != num_blocks or not tensor.is_contiguous() for tensor in tensors):
        raise PluginError(
            f"blocks of {type(cache).__name__} cannot be kept outside of memory: it is not a dataclass of contiguous "
            f"tensors whose first dimension counts blocks"
        )
    return tensors
