"""What this machine can do at best, measured: bytes read and operations computed per second."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

_CACHE = Path("/sys/devices/system/cpu/cpu0/cache/index3/size")  # Linux
_LEAST_BYTES = 2**30
_SIDE = 2048
_TIMES = 5


@dataclass(frozen=True)
class Machine:
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


def measure(threads: int) -> Machine:
    """A second or two. Rates are those of the fastest of a few tries: a bound is not a median."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return Machine(threads, _read_bytes(), _int8_operations(), _bfloat16_operations())
    finally:
        torch.set_num_threads(before)


def _read_bytes() -> float:
    """Over an array of which the last-level cache holds a quarter at most."""
    numbers = torch.ones(max(_LEAST_BYTES, 4 * _last_level_cache()) // 4)
    return numbers.nbytes / _fastest(numbers.sum)


def _int8_operations() -> float:
    a, b = (torch.randint(-127, 127, (_SIDE, _SIDE), dtype=torch.int8) for _ in range(2))
    multiply = torch._int_mm  # oneDNN's product of int8 matrices; torch has no public name for it
    return 2 * _SIDE**3 / _fastest(lambda: multiply(a, b))


def _bfloat16_operations() -> float:
    a, b = (torch.randn(_SIDE, _SIDE, dtype=torch.bfloat16) for _ in range(2))
    return 2 * _SIDE**3 / _fastest(lambda: a @ b)


def _fastest(run: Callable[[], object]) -> float:
    """Seconds."""
    run()
    seconds = []
    for _ in range(_TIMES):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _last_level_cache() -> int:
    """Bytes; 0 where the system does not say."""
    if not _CACHE.is_file():
        return 0
    size = _CACHE.read_text().strip()
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    return int(size[:-1]) * units[size[-1]] if size[-1:] in units else int(size)
