"""What a step takes, by how many tokens are drafted in it."""

from __future__ import annotations

from collections import deque

# Together with one sequence's own token: 2, 4, 8, … rows, which is what kernels are cut for, and few different shapes.
DRAFT_COUNTS = (1, 3, 7, 15, 31, 63)
# What is not measured is guessed to cost this share of a plain step per draft: low, so that it gets measured.
GUESSED_SHARE = 0.03
_KEPT = 5
# Steps with drafts after which a plain step is measured again: contexts grow and machines get busy.
_REFRESH = 64


class StepCosts:
    """Seconds of decode steps of one number of sequences: medians of the last few, per number of drafts.

    The first step of each kind is not counted: memory is touched and shapes are seen for the first time in it.
    """

    def __init__(self) -> None:
        self._seconds: dict[int, deque[float]] = {}
        self._medians: dict[int, float] = {}
        self._since_plain = 0
        self.steps_without_drafts = 0

    def record(self, num_drafts: int, seconds: float) -> None:
        """One step. The time of a number of drafts that is not in `DRAFT_COUNTS` is not needed again."""
        self._since_plain = self._since_plain + 1 if num_drafts else 0
        self.steps_without_drafts = 0 if num_drafts else self.steps_without_drafts + 1
        if num_drafts and num_drafts not in DRAFT_COUNTS:
            return
        if num_drafts not in self._seconds:
            self._seconds[num_drafts] = deque(maxlen=_KEPT)
            return
        kept = self._seconds[num_drafts]
        kept.append(seconds)
        self._medians[num_drafts] = sorted(kept)[(len(kept) - 1) // 2]

    @property
    def comparable(self) -> bool:
        """Whether the time of a plain step is known well enough to compare others with it."""
        return 0 in self._medians and self._since_plain < _REFRESH

    def ratio(self, num_drafts: int) -> float:
        """Time of a step with so many drafts over that of a plain one, which must be `comparable`."""
        plain = self._medians[0]
        if num_drafts in self._medians:
            return self._medians[num_drafts] / plain
        fewer = max(count for count in self._medians if count < num_drafts)
        return max(1.0, self._medians[fewer] / plain) + GUESSED_SHARE * (num_drafts - fewer)
