"""What this machine can do at best, measured: bytes read and operations computed per second."""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import torch

from inference_pio.metrics.hardware import Machine
from inference_pio.metrics.memory import available_bytes

_LEAST_BYTES = 2**30
_SIDES = (512, 1024, 2048)
_TIMES = 5
# One product may take so long, and one rate: a processor without int8 or bfloat16 products takes a hundred times as
# long as one that has them.
_PRODUCT_SECONDS, _RATE_SECONDS = 0.12, 0.4
_DISK_BYTES, _DISK_PIECE, _DISK_SECONDS = 2**28, 2**23, 0.7


class Rates(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rates with `threads` threads: memory in bytes per second, products in operations (two per multiply-add)."""

    threads: int
    read_bytes: float
    int8_operations: float
    bfloat16_operations: float

    @property
    def linear_operations(self) -> float:
        """The faster kind: weights of few bits may be multiplied in either."""
        return max(self.int8_operations, self.bfloat16_operations)

    def __str__(self) -> str:
        return (
            f"this machine with {self.threads} threads: reads {self.read_bytes / 1e9:.1f} GB/s, multiplies "
            f"{self.int8_operations / 1e9:.0f} G operations/s in int8, {self.bfloat16_operations / 1e9:.0f} in bfloat16"
        )


def measure(threads: int, last_level_cache: int = 0) -> Rates:
    """A second or two. Rates are those of the fastest of a few tries: a bound is not a median.

    Args:
        last_level_cache: in bytes; 0 where it is not known.
    """
    # In a thread that ends: one that has computed in parallel keeps OpenMP workers for as long as it lives.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(_measure, threads, last_level_cache).result()


def last_level_cache(machine: Machine) -> int:
    """Bytes; 0 where the system does not say."""
    return max((cache.bytes for cache in machine.processor.caches), default=0)


def disk_read_bytes(file: Path) -> float:
    """Bytes per second of reading a file from its disk, past the system's cache, in pieces of 8 MiB, one at a time.

    Raises:
        OSError: it may not be read, or its file system does not read past the cache.
    """
    if not hasattr(os, "O_DIRECT"):
        raise OSError("this system does not read past its cache")
    descriptor = os.open(file, os.O_RDONLY | os.O_DIRECT)
    try:
        with mmap.mmap(-1, _DISK_PIECE) as piece:
            read, start = 0, time.perf_counter()
            while read < _DISK_BYTES and time.perf_counter() - start < _DISK_SECONDS:
                count = os.preadv(descriptor, [piece], read)
                read += count
                if count < _DISK_PIECE:
                    break
            return read / (time.perf_counter() - start)
    finally:
        os.close(descriptor)


def _measure(threads: int, cache: int) -> Rates:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return Rates(threads, _read_bytes(cache), _int8_operations(), _bfloat16_operations())
    finally:
        torch.set_num_threads(before)


def _read_bytes(cache: int) -> float:
    """Over an array of which the last-level cache holds a quarter at most, and which takes a quarter of what is free
    at most.
    """
    wanted = max(_LEAST_BYTES, 4 * cache)
    numbers = torch.ones(min(wanted, available_bytes() // 4) // 4)
    return numbers.nbytes / _fastest(numbers.sum)


def _int8_operations() -> float:
    multiply = torch._int_mm  # oneDNN's product of int8 matrices; torch has no public name for it

    def product(side: int) -> Callable[[], object]:
        a, b = (torch.randint(-127, 127, (side, side), dtype=torch.int8) for _ in range(2))
        return lambda: multiply(a, b)

    return _operations(product)


def _bfloat16_operations() -> float:
    def product(side: int) -> Callable[[], object]:
        a, b = (torch.randn(side, side, dtype=torch.bfloat16) for _ in range(2))
        return lambda: a @ b

    return _operations(product)


def _operations(product: Callable[[int], Callable[[], object]]) -> float:
    """Of square matrices, the largest whose product does not take too long or those that do best."""
    rate = 0.0
    for side in _SIDES:
        if rate and 2 * side**3 / rate > _PRODUCT_SECONDS:
            break
        rate = max(rate, 2 * side**3 / _fastest(product(side)))
    return rate


def _fastest(run: Callable[[], object]) -> float:
    """Seconds."""
    run()
    seconds: list[float] = []
    while len(seconds) < 2 or (len(seconds) < _TIMES and sum(seconds) < _RATE_SECONDS):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
