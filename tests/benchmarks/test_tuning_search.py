"""The search on costs that are known: it finds the least, through noise, within its bounds."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from inference_pio.benchmarks.tuning.search import Axis, Found, Search

AXES = (
    Axis("threads", (1, 2, 4, 8)),
    Axis("chunk", (128, 256, 512, 1024, 2048)),
    Axis("block", (16, 32, 64, 128)),
    Axis("guesses", (0, 3, 7, 15)),
)
START = {"threads": 4, "chunk": 512, "block": 32, "guesses": 15}
Surface = Callable[[Mapping[str, Any]], float]


def bowl(at: Mapping[str, Any]) -> float:
    """Least at 8 threads, chunks of 1024, blocks of 64, 3 guesses."""
    return (
        (1 + 0.3 * abs(math.log2(at["threads"] / 8)))
        * (1 + 0.1 * abs(math.log2(at["chunk"] / 1024)))
        * (1 + 0.05 * abs(math.log2(at["block"] / 64)))
        * (1 + 0.02 * abs(at["guesses"] - 3))
    )


def entangled(at: Mapping[str, Any]) -> float:
    """The best chunk depends on the number of threads, which is decided first: a second turn has to mend it."""
    best_chunk = 256 * at["threads"] / 2
    return (1 + 0.4 * abs(math.log2(at["threads"] / 8))) * (
        1 + 0.15 * abs(math.log2(at["chunk"] / best_chunk))
    )


def flat(at: Mapping[str, Any]) -> float:  # noqa: ARG001
    return 1.0


class Bench:
    """Takes the time it says, on a clock of its own, with noise: a few per cent, now and then three times as much."""

    def __init__(self, surface: Surface, seed: int, noise: float = 0.02, outliers: float = 0.03) -> None:
        self.surface, self.noise, self.outliers = surface, noise, outliers
        self.draw = random.Random(seed)
        self.clock, self.runs = 0.0, 0

    def cost(self, setting: Mapping[str, Any], round_number: int) -> float:
        work = 0.5 + 0.1 * math.sin(round_number)  # rounds differ, candidates of one round do not
        cost = work * self.surface(setting) * math.exp(self.draw.gauss(0, self.noise))
        if self.draw.random() < self.outliers:
            cost *= 3
        self.clock += cost
        self.runs += 1
        return cost

    def search(self, seconds: float = math.inf) -> Found:
        return Search(self.cost, lambda: self.clock).descend(AXES, START, seconds)


def least(surface: Surface) -> float:
    return min(
        surface(dict(zip([axis.name for axis in AXES], values, strict=True)))
        for values in itertools.product(*(axis.values for axis in AXES))
    )


@pytest.mark.parametrize("surface", [bowl, entangled])
def test_it_finds_the_best_of_the_full_grid_within_noise(surface: Surface) -> None:
    costs = [surface(Bench(surface, seed).search().setting) / least(surface) for seed in range(40)]
    assert sorted(costs)[30] <= 1.021  # three of four; a single guess more or less costs 2 %
    assert max(costs) < 1.10
    assert surface(START) / least(surface) > 1.25  # there was something to find


def test_without_noise_it_finds_the_very_best() -> None:
    for surface in (bowl, entangled):
        found = Bench(surface, 0, noise=0, outliers=0).search()
        assert surface(found.setting) == least(surface)
        assert found.complete


def test_moves_say_what_they_brought() -> None:
    found = Bench(bowl, 0, noise=0, outliers=0).search()
    gains = {move.axis: move.ratio for move in found.moves}
    assert set(gains) == {"threads", "chunk", "block", "guesses"}
    assert gains["threads"] == pytest.approx(1.3)
    assert math.prod(gains.values()) == pytest.approx(bowl(START) / least(bowl))


def test_evaluations_are_bounded_and_few() -> None:
    values = sum(len(axis.values) for axis in AXES)
    grid = math.prod(len(axis.values) for axis in AXES)
    for surface in (bowl, entangled, flat):
        bench = Bench(surface, 5)
        found = bench.search()
        assert bench.runs == found.evaluations <= 3 * 6 * values
    assert found.evaluations < grid


def test_what_makes_no_difference_stays_as_it_is() -> None:
    found = Bench(flat, 1, noise=0.001, outliers=0).search()
    assert (found.setting, found.moves) == (START, ())


def test_it_ends_in_time_with_what_it_has() -> None:
    for seconds in (0.0, 0.3, 3.0, 20.0):
        bench = Bench(bowl, 2)
        found = bench.search(seconds)
        assert bench.clock <= seconds + 3 * 3 * bowl(START)  # one run may be under way
        assert found.setting.keys() == START.keys()
        assert bowl(found.setting) <= bowl(START)
    assert not Bench(bowl, 2).search(3.0).complete


def test_what_takes_many_times_as_long_is_measured_once() -> None:
    """Two threads on a machine whose processors are busy: there is no time for a second look, and no need."""
    slow = Bench(lambda at: 20.0 if at["threads"] > 1 else 1.0, 4)
    found = slow.search(60.0)
    assert found.setting["threads"] == 1
    assert found.races >= 1


def test_a_start_outside_of_the_axes_is_a_candidate() -> None:
    bench = Bench(lambda at: abs(at["x"] - 3) + 1.0, 0, noise=0, outliers=0)
    search = Search(bench.cost, lambda: bench.clock)
    assert search.descend([Axis("x", (1, 5))], {"x": 3}, math.inf).setting == {"x": 3}
    assert search.descend([Axis("x", (1, 3))], {"x": 9}, math.inf).setting == {"x": 3}


def test_a_comparison_is_in_pairs_and_says_how_sure_it_is() -> None:
    bench = Bench(bowl, 3, noise=0.005, outliers=0)
    search = Search(bench.cost, lambda: bench.clock)
    best = {"threads": 8, "chunk": 1024, "block": 64, "guesses": 3}
    found = search.compare(START, best, 9, math.inf)
    assert found is not None
    assert found.verdict == "faster"
    assert found.ratio.median == pytest.approx(bowl(START) / bowl(best), rel=0.02)
    assert search.compare(best, START, 9, math.inf).verdict == "slower"  # type: ignore[union-attr]
    assert search.compare(START, best, 3, math.inf).verdict == "cannot tell"  # type: ignore[union-attr]
    assert search.compare(START, best, 3, bench.clock) is None
