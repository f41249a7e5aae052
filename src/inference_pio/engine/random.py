"""Random numbers that depend on nothing but what they are for."""

from __future__ import annotations

_MASK = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15


def uniform(seed: int, index: int, position: int) -> float:
    """A number in [0, 1) for one answer of a request and one token position; always the same for the same three.

    Counter-based (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): nothing is carried from token
    to token, so batching, chunking, preemption and prefix hits cannot change a draw. The mixing function is the
    finaliser of SplitMix64 (Steele, Lea and Flood 2014), applied once per argument; the top 53 bits are the result.
    """
    state = 0
    for value in (seed, index, position):
        state = _mix((state ^ (value & _MASK)) + _GOLDEN & _MASK)
    return (state >> 11) * 2.0**-53


def _mix(x: int) -> int:
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)
