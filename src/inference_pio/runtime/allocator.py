"""What the C library does with memory that is given back to it."""

from __future__ import annotations

import ctypes
import gc
import sys
from functools import cache

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_SMALLEST_RETURNED = 128 * 2**10  # glibc's own number, before it has seen anything freed
_KEPT_BYTES = 2**31 - 1
_LARGEST_IN_HEAP = 32 * 2**20  # the most that glibc accepts


def return_freed_memory() -> None:
    """Let glibc return what is read of a file as soon as it is packed.

    By default it keeps buffers of up to 32 MiB once it has seen some freed: 250 MB beside the 1.1 GB of a model. Most
    tensors of a small model are of less than 1 MiB: with that as the bound 15 MB beside the 98 MB of SmolLM2-135M.
    """
    if (libc := _glibc()) is not None:
        libc.mallopt(_M_MMAP_THRESHOLD, _SMALLEST_RETURNED)


def keep_freed_memory() -> None:
    """Let glibc keep what a step frees for the next step, instead of returning it to the system.

    A step takes and frees some tens of megabytes. By default glibc hands them back each time, and the next step has
    every page zeroed and mapped again: 230,000 page faults in a batch of 32 sequences of 256 + 128 tokens of
    SmolLM2-135M, 3 % of its time. What loading has freed goes back first; `release_memory` gives back what is free when
    a model is closed. Other C libraries are left as they are.
    """
    if (libc := _glibc()) is not None:
        libc.malloc_trim(0)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_IN_HEAP)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def release_memory() -> None:
    """Collect garbage and return free pages to the system, where the C library can."""
    gc.collect()
    if (libc := _glibc()) is not None:
        libc.malloc_trim(0)


@cache
def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None
