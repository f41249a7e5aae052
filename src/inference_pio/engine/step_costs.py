"""What a step takes, by how many tokens are drafted in it."""

from __future__ import annotations

from collections import deque

# Together with one sequence's own token: 2, 4, 8, … rows, which is what kernels are cut for, and few different shapes.
DRAFT_COUNTS = (1, 3, 7, 15, 31, 63)
# What is not measured is guessed to cost this share of a plain step per draft: low, so that it gets measured. One that
# the model's own layer makes costs a pass of that layer and the head besides.
GUESSED_SHARE, GUESSED_SHARE_OF_PASSES = 0.03, 0.1
_KEPT = 5
# Contexts grow and machines get busy: after so many steps a number is not trusted any more. For plain steps it is
# less, because all others are compared with them and they cost least to measure.
_TRUSTED_STEPS, _TRUSTED_STEPS_PLAIN = 512, 64


class StepCosts:
    """Seconds of decode steps of one number of sequences: medians of the last few, per number of drafts.

    The first step of each kind is not counted: memory is touched and shapes are seen for the first time in it.
    """

    def __init__(self, guessed_share: float = GUESSED_SHARE) -> None:
        self._guessed_share = guessed_share
        self._steps = 0
        self._last: dict[int, int] = {}
        self._seconds: dict[int, deque[float]] = {}
        self._medians: dict[int, float] = {}

    def record(self, num_drafts: int, seconds: float) -> None:
        """One step; what one with a number of drafts that is not in `DRAFT_COUNTS` took is not needed again."""
        self._steps += 1
        if num_drafts and num_drafts not in DRAFT_COUNTS:
            return
        is_first, is_known = num_drafts not in self._last, self._knows(num_drafts)
        self._last[num_drafts] = self._steps
        if is_first:
            return
        if not is_known:
            self._seconds[num_drafts] = deque(maxlen=_KEPT)
        kept = self._seconds[num_drafts]
        kept.append(seconds)
        self._medians[num_drafts] = sorted(kept)[(len(kept) - 1) // 2]

    @property
    def comparable(self) -> bool:
        """Whether the time of a plain step is known, for others to be compared with it."""
        return self._knows(0)

    def ratios(self, most: int) -> list[tuple[int, float]]:
        """Numbers of drafts up to `most`, and time of a step with so many over that of a plain one (`comparable`).

        Unknown ones are guessed from the known ones below: it goes on as from the last but one of them to the last.
        The step from none to any does not count for that, since it may change to other kernels.
        """
        plain, result = self._medians[0], []
        known, ratio, slope = 0, 1.0, self._guessed_share
        for count in DRAFT_COUNTS:
            if count > most:
                break
            if not self._knows(count):
                result.append((count, ratio + slope * (count - known)))
                continue
            measured = self._medians[count] / plain
            result.append((count, measured))
            if known:
                slope = max(self._guessed_share, (measured - ratio) / (count - known))
            known, ratio = count, max(1.0, measured)
        return result

    def _knows(self, num_drafts: int) -> bool:
        trusted = _TRUSTED_STEPS if num_drafts else _TRUSTED_STEPS_PLAIN
        return num_drafts in self._medians and self._steps - self._last[num_drafts] < trusted
