"""What can be said from a few repeats of a measurement, and what cannot."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

CONFIDENCE = 0.9
Verdict = Literal["faster", "slower", "cannot tell"]


@dataclass(frozen=True)
class Interval:
    """Holds the true median with probability `confidence`, whatever the distribution."""

    low: float
    high: float
    confidence: float


@dataclass(frozen=True)
class Summary:
    """Median, extremes and the median's interval of `count` samples; NaN everywhere where nothing was measured.

    Of samples that are yes or no (`share`) it is their share instead of their median.
    """

    median: float
    minimum: float
    maximum: float
    count: int
    interval: Interval

    @classmethod
    def of(cls, samples: Sequence[float]) -> Summary:
        """Raises ValueError where there is no sample or one is not finite."""
        if not samples or not all(map(math.isfinite, samples)):
            raise ValueError(f"samples must be finite numbers, at least one, got {list(samples)!r:.80}")
        interval = median_interval(samples)
        return cls(statistics.median(samples), min(samples), max(samples), len(samples), interval)

    @classmethod
    def share(cls, successes: int, count: int) -> Summary:
        """How many of `count` answers are right, with Wilson's interval; missing where nothing was asked."""
        if not count:
            return cls.missing()
        return cls(successes / count, 0.0, 1.0, count, wilson_interval(successes, count))

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> Summary:
        """What `asdict` made of one."""
        return cls(**{**plain, "interval": Interval(**plain["interval"])})

    @classmethod
    def missing(cls) -> Summary:
        """Not measured: NaN, never 0."""
        return cls(math.nan, math.nan, math.nan, 0, Interval(math.nan, math.nan, 0.0))


@dataclass(frozen=True)
class Effect:
    """What a change does to time: `ratio` is time without it by time with it, pair by pair; above 1 it helps."""

    ratio: Summary
    verdict: Verdict


def effect(seconds_with: Sequence[float], seconds_without: Sequence[float]) -> Effect:
    """Compare pairs that were measured side by side. Too few pairs, or an interval around 1, tell nothing."""
    pairs = zip(seconds_without, seconds_with, strict=True)
    ratio = Summary.of([without / with_it for without, with_it in pairs])
    verdict: Verdict = "cannot tell"
    if ratio.interval.confidence >= CONFIDENCE:
        if ratio.interval.low > 1:
            verdict = "faster"
        elif ratio.interval.high < 1:
            verdict = "slower"
    return Effect(ratio, verdict)


def median_interval(samples: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """The narrowest symmetric pair of order statistics that holds the median with at least this confidence.

    Distribution-free: the k-th smallest and k-th largest of n samples enclose the median with probability
    1 − 2·P(B < k), B binomial(n, ½) (Conover, Practical Nonparametric Statistics, section 3.2). With too few samples
    it is the whole range, and `confidence` in the result says how little that is worth.
    """
    ordered = sorted(samples)
    count = len(ordered)
    chosen = next((k for k in range(count // 2, 0, -1) if _coverage(count, k) >= confidence), 1)
    return Interval(ordered[chosen - 1], ordered[count - chosen], _coverage(count, chosen))


def _coverage(count: int, k: int) -> float:
    below = sum(math.comb(count, i) for i in range(k))
    return max(0.0, 1 - below / 2.0 ** (count - 1))


def wilson_interval(successes: int, count: int, confidence: float = 0.95) -> Interval:
    """Of a share, from `count` independent answers (Wilson, JASA 22 (1927) 209): inside 0 to 1, and no point where
    all or none are right."""
    z = statistics.NormalDist().inv_cdf((1 + confidence) / 2)
    share = successes / count
    centre = share + z * z / (2 * count)
    margin = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    low, high = (centre - margin) / scale, (centre + margin) / scale
    # At the ends rounding may step over what the formula gives exactly.
    return Interval(low if successes else 0.0, high if successes < count else 1.0, confidence)


def mean_interval(samples: Sequence[float], confidence: float = 0.95) -> Interval:
    """Of a mean of many samples, by the normal distribution; a point of confidence 0 where there is one alone."""
    mean = statistics.fmean(samples)
    if len(samples) < 2:
        return Interval(mean, mean, 0.0)
    z = statistics.NormalDist().inv_cdf((1 + confidence) / 2)
    margin = z * statistics.stdev(samples) / math.sqrt(len(samples))
    return Interval(mean - margin, mean + margin, confidence)
