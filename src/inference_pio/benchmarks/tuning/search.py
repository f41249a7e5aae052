"""Which of many settings costs least, where a cost is a noisy measurement and time is short.

Coordinate descent: one axis after the other, all its values raced against each other while the rest stays, until a
whole turn changes nothing. In a race the values take turns, round by round, so that what changes on the machine meets
all of them; whichever is clearly behind leaves it (Maron and Moore, Hoeffding Races, NIPS 1993, with a rule for few
rounds in place of the bound). What a search finds is a guess until it has been compared with where it began.

Nothing here knows what is measured, or how.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inference_pio.benchmarks.samples import Effect, effect

Setting = Mapping[str, Any]
Cost = Callable[[Setting, int], float]
"""Of one setting in a round, above 0. What is measured is drawn from the round's number: equal for all in a round."""

_TURNS = 3
_ROUNDS = 6
# Behind the best in every round by this factor, after so many rounds: out.
_BEHIND = {1: 4.0, 2: 1.10, 3: 1.05, 4: 1.03, 5: 1.02}
# Less than this is no reason to leave a setting.
_LEAST_GAIN = 1.01
# What two or three rounds say counts only where each of them says that much.
_CLEARLY = 1.05


@dataclass(frozen=True)
class Axis:
    name: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Move:
    """A race that changed the setting: by what the cost fell, in that race."""

    axis: str
    value: Any
    ratio: float


@dataclass(frozen=True)
class Race:
    """`ratio` is the cost of the first candidate over the winner's; `decided` where there was time for all `rounds`."""

    winner: Setting
    ratio: float
    rounds: int
    decided: bool


@dataclass(frozen=True)
class Found:
    """`races` that came to an end or had two rounds; `complete` where the search ended before its time."""

    setting: Setting
    moves: tuple[Move, ...]
    evaluations: int
    races: int
    complete: bool


class Search:
    """
    Args:
        cost: measures.
        now: seconds on any clock.
    """

    def __init__(self, cost: Cost, now: Callable[[], float]) -> None:
        self._cost, self._now = cost, now
        self._round = 0
        self.evaluations = 0

    def descend(
        self,
        axes: Sequence[Axis],
        start: Setting,
        deadline: float,
        report: Callable[[Move], None] | None = None,
    ) -> Found:
        """What is best, as found before `deadline`. `start` has a value for each axis, perhaps none of its own.

        At most 3 turns × 6 rounds × all values are measured. The time that is left is shared among the axes of a turn.
        """
        best, moves, settled, races, run, cut = dict(start), [], 0, 0, 0, False
        while settled < len(axes) and races < _TURNS * len(axes) and self._now() < deadline:
            axis = axes[races % len(axes)]
            share = (deadline - self._now()) / max(1, len(axes) - settled)
            races += 1
            candidates = [
                best,
                *({**best, axis.name: value} for value in axis.values if value != best[axis.name]),
            ]
            race = self.race(candidates, self._now() + share, deadline)
            settled, cut = settled + 1, cut or not race.decided
            run += race.decided or race.rounds >= 2
            if race.winner is not best:
                best, settled = dict(race.winner), 1
                moves.append(Move(axis.name, best[axis.name], race.ratio))
                if report is not None:
                    report(moves[-1])
        return Found(best, tuple(moves), self.evaluations, run, settled >= len(axes) and not cut)

    def race(self, candidates: Sequence[Setting], deadline: float, last: float = math.inf) -> Race:
        """The first wins unless another is better by 1 %, in every round, of six in all but one; and clearly, where
        there was no time for four.

        Args:
            deadline: of all rounds but the first, which may take until `last`.
        """
        running = list(range(len(candidates)))
        costs: list[list[float]] = [[] for _ in candidates]
        for finished in range(1, _ROUNDS + 1):
            until = last if finished == 1 else deadline
            if len(running) == 1 or not self._run(candidates, running, costs, until):
                break
            lead = min(running, key=lambda which: statistics.median(costs[which]))
            limit = _BEHIND.get(finished)
            if limit is not None:
                behind = [which for which in running if _least_ratio(costs[which], costs[lead]) > limit]
                running = [which for which in running if which not in behind]
        rounds = len(costs[running[0]])
        decided = len(running) == 1 or rounds == _ROUNDS
        if rounds < 2 and not decided:
            return Race(candidates[0], 1.0, rounds, decided)
        ratios = {which: statistics.median(_ratios(costs[0], costs[which])) for which in running}
        winner = max(ratios, key=lambda which: ratios[which])
        if winner == 0 or (0 in running and not _is_better(_ratios(costs[0], costs[winner]))):
            return Race(candidates[0], 1.0, rounds, decided)
        return Race(candidates[winner], ratios[winner], rounds, decided)

    def compare(self, before: Setting, after: Setting, rounds: int, deadline: float) -> Effect | None:
        """What going from one setting to another brings, in pairs; None where there was no time for a single one."""
        costs: list[list[float]] = [[], []]
        for _ in range(rounds):
            if not self._run([before, after], [0, 1], costs, deadline):
                break
        return effect(costs[1], costs[0]) if costs[0] else None

    def _run(
        self, candidates: Sequence[Setting], running: Sequence[int], costs: list[list[float]], deadline: float
    ) -> bool:
        """One round of those still running; False, and nothing counted, where there was no time for all of it."""
        order = running if self._round % 2 == 0 else running[::-1]
        taken = {}
        for which in order:
            if self._now() >= deadline:
                return False
            taken[which] = self._cost(candidates[which], self._round)
            self.evaluations += 1
        for which, cost in taken.items():
            costs[which].append(cost)
        self._round += 1
        return True


def _ratios(first: Sequence[float], second: Sequence[float]) -> list[float]:
    """Round by round, of the rounds that both ran."""
    return [one / other for one, other in zip(first, second, strict=False)]


def _least_ratio(costs: Sequence[float], lead: Sequence[float]) -> float:
    return min(_ratios(costs, lead))


def _is_better(ratios: Sequence[float]) -> bool:
    """Whether costs of one over those of another, in the same rounds, say that the other is better."""
    if len(ratios) < 4:
        return min(ratios) >= _CLEARLY
    lost = sum(ratio <= 1 for ratio in ratios)
    return statistics.median(ratios) >= _LEAST_GAIN and lost <= (len(ratios) == _ROUNDS)
