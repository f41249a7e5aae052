"""The engine's side of a tier below memory: what falls out of the cache goes there, what is found there comes back."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Items
from itertools import takewhile
from typing import Any

from inference_pio.cache.tiers import BlockBytes, BlockData, PrefixTier, StoredBlock


class TierSide:
    """Knows of every published block what a tier wants to know of it.

    num_loaded  blocks that came back so far
    """

    def __init__(self, tier: PrefixTier, caches: Items[Any], num_blocks: int) -> None:
        self.tier = tier
        self.num_loaded = 0
        self._bytes = BlockBytes(caches, num_blocks)
        self._known: dict[int, tuple[bytes, list[int]]] = {}

    @property
    def most_blocks(self) -> int:
        """That the tier has room for, one at least."""
        return max(1, self.tier.limit_bytes // self._bytes.nbytes)

    def published(self, block: int, parent: bytes, token_ids: list[int]) -> None:
        self._known[block] = parent, token_ids

    def let_go(self, block: int, digest: bytes, *, wait: bool = False) -> None:
        """Keep a published block; afterwards its memory may hold something else."""
        parent, token_ids = self._known[block]
        self.tier.store(StoredBlock(digest, parent, token_ids, self._bytes.read(block)), wait=wait)

    def find(self, parent: bytes, digests: Items[bytes]) -> Iterator[BlockData]:
        """Contents of a chain of blocks behind `parent`, as far as they are there and fit the cache."""
        return takewhile(lambda data: len(data) == self._bytes.nbytes, self.tier.load(parent, digests))

    def fill(self, block: int, data: BlockData) -> None:
        self._bytes.write(block, data)
        self.num_loaded += 1
