"""Verdicts on figures of two runs, worked out by hand."""

from __future__ import annotations

import math

import pytest

from inference_pio.benchmarks.compare import changes
from inference_pio.benchmarks.report import Report
from inference_pio.benchmarks.samples import Summary, wilson_interval


def report(benchmark: str = "throughput", work: str = "1 × 4 + 4 tokens", **environment: str | int) -> Report:
    facts: dict[str, str | int] = {"cpu": "A", "cores": 2, "threads": 2, **environment}
    return Report(benchmark, "tiny", work={"batch": work}, environment=facts)


def words(then: Report, now: Report, why_not: str = "") -> dict[str, str]:
    return {change.row.what: change.word for change in changes(then, now, why_not)}


def test_which_way_is_better_follows_from_the_unit() -> None:
    then, now = report(), report()
    for what, unit, before, after in (
        ("rate", "tok/s", 100.0, 130.0),
        ("time", "ms", 100.0, 130.0),
        ("energy", "J/token", 100.0, 130.0),
        ("power", "W", 100.0, 130.0),
    ):
        then.add(what, unit, Summary.of([before] * 5))
        now.add(what, unit, Summary.of([after] * 5))
    assert words(then, now) == {"rate": "faster", "time": "slower", "energy": "worse", "power": "cannot tell"}
    assert [change.is_worse for change in changes(then, now)] == [False, True, True, False]
    rates = {change.row.what: change.ratio for change in changes(then, now)}
    assert rates["rate"] == pytest.approx(1.3)
    assert rates["time"] == pytest.approx(1 / 1.3)
    assert math.isnan(rates["power"])


def test_one_reading_tells_something_only_of_what_does_not_scatter() -> None:
    then, now = report(), report()
    for side, figure in ((then, 1.0), (now, 1.2)):
        side.add("counted", "GB", figure, counted=True)
        side.add("measured", "GB", figure)
        side.add("equal", "GB", 1.0, counted=True)
    assert words(then, now) == {"counted": "worse", "measured": "cannot tell", "equal": "same"}


def test_other_work_and_other_circumstances_tell_nothing() -> None:
    then, now, other = report(), report(), report(work="2 × 4 + 4 tokens")
    for side, rate in ((then, 100.0), (now, 200.0), (other, 200.0)):
        side.add("rate", "tok/s", Summary.of([rate] * 5))
    assert words(then, now) == {"rate": "faster"}
    assert words(then, now, "another machine") == {"rate": "cannot tell"}
    [change] = changes(then, other)
    assert (change.word, change.why) == ("cannot tell", "other work")


def test_what_one_side_lacks_is_not_compared_and_what_was_not_measured_is_said() -> None:
    then, now = report(), report()
    then.add("only then", "ms", 1.0)
    now.add("only now", "ms", 1.0)
    then.add("energy", "J/token", math.nan)
    now.add("energy", "J/token", Summary.of([1.0] * 5))
    [change] = changes(then, now)
    assert (change.row.what, change.word, change.why) == ("energy", "cannot tell", "not measured then")


def test_shares_compare_by_wilsons_intervals() -> None:
    then, now = report("accuracy"), report("accuracy")
    for what, before, after in (("far", 100, 180), ("near", 100, 104)):
        then.add(what, "", Summary.share(before, 200), better="more")
        now.add(what, "", Summary.share(after, 200), better="more")
    assert words(then, now) == {"far": "better", "near": "cannot tell"}


# Brown, Cai, DasGupta, Statistical Science 16 (2001), and any calculator of binomial intervals: 95 %.
@pytest.mark.parametrize(
    ("successes", "count", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (5, 10, 0.2366, 0.7634), (81, 263, 0.2553, 0.3662)],
)
def test_wilsons_interval(successes: int, count: int, low: float, high: float) -> None:
    interval = wilson_interval(successes, count)
    assert (interval.low, interval.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


def test_no_answers_are_no_share() -> None:
    assert math.isnan(Summary.share(0, 0).median)
