"""Which block holds which prefix."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Collection, Sequence

_DIGEST_BYTES = 32


class PrefixIndex:
    """Digest of a whole prefix, up to and including one full block, to the block that holds its last part.

    A block's digest covers its parent's digest, its own token ids and the images among them, so equal digests mean
    equal prefixes and not merely equal blocks. BLAKE2b with 256 bits: a collision cannot be searched for, let alone met
    by chance, which is what allows a hit to be trusted without comparing tokens.
    """

    def __init__(self, seed: Sequence[str], generation: bytes = b"0") -> None:
        """`generation` tells digests of blocks that are to be forgotten from those that come after."""
        self._seed = "\0".join(seed).encode()
        self._generation = generation
        self._clearings = 0
        self._block_of: dict[bytes, int] = {}
        self._digest_of: dict[int, bytes] = {}

    def __len__(self) -> int:
        return len(self._block_of)

    def __contains__(self, block: int) -> bool:
        return block in self._digest_of

    @property
    def root(self) -> bytes:
        """The parent digest of a sequence's first block."""
        text = self._seed + b"\0" + self._generation
        return hashlib.blake2b(text, digest_size=_DIGEST_BYTES).digest()

    def digest(self, parent: bytes, token_ids: Sequence[int], media: bytes = b"") -> bytes:
        """`media` tells apart what equal token ids stand for; its place behind a full block's ids is fixed."""
        data = array("q", token_ids).tobytes()
        return hashlib.blake2b(parent + data + media, digest_size=_DIGEST_BYTES).digest()

    @property
    def digests(self) -> Collection[bytes]:
        """All that can be found."""
        return self._block_of.keys()

    def find(self, digest: bytes) -> int | None:
        return self._block_of.get(digest)

    def block_of(self, digest: bytes) -> int:
        return self._block_of[digest]

    def digest_of(self, block: int) -> bytes:
        return self._digest_of[block]

    def insert(self, digest: bytes, block: int) -> bool:
        """Publish a full block; False, and nothing done, where one with equal contents was published before."""
        if digest in self._block_of:
            return False
        self._block_of[digest] = block
        self._digest_of[block] = digest
        return True

    def remove(self, block: int) -> None:
        del self._block_of[self._digest_of.pop(block)]

    def clear(self, generation: bytes | None = None) -> None:
        """Forget everything; what running sequences publish later, under the old root, is never found."""
        self._block_of.clear()
        self._digest_of.clear()
        self._clearings += 1
        self._generation = b"%d" % self._clearings if generation is None else generation
