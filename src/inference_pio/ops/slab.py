"""Memory for weights that lie side by side in large pages."""

from __future__ import annotations

import mmap
from contextlib import suppress
from typing import Protocol

import torch
from torch import Tensor

_CHUNK = 64 * 2**20
_ALIGNMENT = 64
_WORTH_KEEPING = 2**16


class HandsOut(Protocol):
    """Where weights may lie."""

    def take(self, nbytes: int) -> Tensor:
        """uint8 [nbytes], aligned to cache lines."""


class Slab:
    """Hands out pieces of large anonymous mappings, which are given back when the last piece is.

    A step reads every weight once, in order. In pages of 4 KiB it would wait for the translation of an address every
    4 KiB, and the processor's prefetching would begin anew; in pages of 2 MiB, which the system is asked for here, it
    does not. Pages that no piece reaches take no memory, but count against a limit of a process's own (RLIMIT_DATA):
    what is left of a mapping is for smaller pieces that come later.
    """

    def __init__(self) -> None:
        self._left: list[Tensor] = []

    def take(self, nbytes: int) -> Tensor:
        """uint8 [nbytes], aligned to cache lines; what it holds is undefined."""
        left = next((left for left in self._left if len(left) >= nbytes), None)
        if left is None:
            left = whole_pages(max(nbytes, _CHUNK))
        else:
            self._left = [each for each in self._left if each is not left]
        used = -(-nbytes // _ALIGNMENT) * _ALIGNMENT
        if len(left) - used >= _WORTH_KEEPING:
            self._left.append(left.narrow(0, used, len(left) - used))
        return left.narrow(0, 0, nbytes)


def whole_pages(nbytes: int) -> Tensor:
    """uint8 [nbytes] of a mapping of its own, in large pages where the system has them; what nobody touches takes none.

    It begins with a page wherever the system maps memory in the way of POSIX.
    """
    if not hasattr(mmap, "MAP_PRIVATE"):
        return torch.empty(nbytes, dtype=torch.uint8)
    memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(
            OSError
        ):  # a system that was built without large pages says so; small ones hold the same
            memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.uint8)
