"""The smallest number that will do, where each trial is dear and there is a good guess."""

from __future__ import annotations

from collections.abc import Callable


def fewest(will_do: Callable[[int], bool], guess: int, least: int, most: int) -> int | None:
    """The smallest of `least` to `most` that will do, if whatever is above one that does will do as well; None: none.

    It steps away from the guess, doubling (Bentley and Yao, An almost optimal algorithm for unbounded searching, 1976),
    and halves what lies between: two trials where the guess is right.
    """
    best, low, high, stride = None, least, most, 1
    trial = guess
    while low <= high:
        trial = min(max(trial, low), high)
        if will_do(trial):
            best, high = trial, trial - 1
        else:
            low = trial + 1
        bounded = best is not None and low > least
        trial = (low + high) // 2 if bounded else trial - stride if best is not None else trial + stride
        stride *= 2
    return best
