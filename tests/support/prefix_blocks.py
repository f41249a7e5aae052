"""Blocks of a chain of prefixes, as they are kept in files."""

from __future__ import annotations

import numpy as np

from inference_pio.cache.tiers import StoredBlock

KEY, ROOT = b"k" * 32, b"r" * 32
SIZE = 1000


def block(number: int, size: int = SIZE) -> StoredBlock:
    """The number-th of a chain behind ROOT."""
    data = np.random.default_rng(number).integers(0, 256, size, dtype=np.uint8)
    return StoredBlock(digest(number), digest(number - 1) if number else ROOT, [number, 7, 8, 9], data)


def digest(number: int) -> bytes:
    return bytes([number]) * 32
