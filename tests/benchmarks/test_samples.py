"""Statistics against published figures and by counting."""

from __future__ import annotations

import itertools
import math

import pytest

from inference_pio.benchmarks.samples import Summary, effect, median_interval


# Ranks and exact levels of the sign-test interval of a median at 95 %: Conover, Practical Nonparametric Statistics,
# section 3.2, and any table of the binomial distribution at 1/2.
@pytest.mark.parametrize(
    ("count", "low", "high", "level"),
    [(6, 1, 6, 0.96875), (10, 2, 9, 0.978515625), (15, 4, 12, 0.96484375), (20, 6, 15, 0.95861053)],
)
def test_interval_takes_the_published_ranks(count: int, low: int, high: int, level: float) -> None:
    samples = [float(number) for number in range(count, 0, -1)]
    interval = median_interval(samples, confidence=0.95)
    assert (interval.low, interval.high) == (low, high)
    assert interval.confidence == pytest.approx(level, abs=1e-8)


def test_confidence_is_the_share_of_sign_patterns_that_enclose_the_median() -> None:
    # Each of 5 samples is below or above the true median, equally likely: the range misses it only where all agree.
    patterns = list(itertools.product((False, True), repeat=5))
    enclosing = sum(any(pattern) and not all(pattern) for pattern in patterns)
    assert median_interval([1.0, 2.0, 3.0, 4.0, 5.0]).confidence == enclosing / len(patterns)


def test_few_samples_admit_how_little_they_say() -> None:
    assert median_interval([7.0]).confidence == 0.0
    three = median_interval([3.0, 1.0, 2.0])
    assert (three.low, three.high, three.confidence) == (1.0, 3.0, 0.75)


def test_summary_of_known_numbers() -> None:
    summary = Summary.of([4.0, 1.0, 3.0, 2.0])
    assert (summary.median, summary.minimum, summary.maximum, summary.count) == (2.5, 1.0, 4.0, 4)


@pytest.mark.parametrize("samples", [[], [1.0, math.nan], [math.inf]])
def test_summary_refuses_what_is_not_measured(samples: list[float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        Summary.of(samples)


def test_missing_is_nan_and_never_zero() -> None:
    missing = Summary.missing()
    assert math.isnan(missing.median)
    assert math.isnan(missing.interval.low)
    assert missing.count == 0


def test_effect_is_the_ratio_of_pairs() -> None:
    outcome = effect([1.0, 2.0, 4.0, 1.0, 1.0], [1.5, 3.0, 6.0, 1.5, 1.5])
    assert outcome.ratio.median == 1.5
    assert outcome.verdict == "faster"
    assert effect([1.5] * 5, [1.0] * 5).verdict == "slower"


def test_effect_cannot_tell_from_few_pairs_or_a_mixed_picture() -> None:
    assert effect([1.0] * 4, [2.0] * 4).verdict == "cannot tell"  # 4 pairs: 87.5 % at most
    assert effect([1.0] * 6, [1.1, 1.1, 0.9, 1.1, 1.0, 1.1]).verdict == "cannot tell"


def test_effect_needs_pairs() -> None:
    with pytest.raises(ValueError, match="shorter|longer"):
        effect([1.0, 2.0], [1.0])
