"""What a sheet holds, as data with a version."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from inference_pio.benchmarks.samples import Effect, Summary, effect

VERSION = 1
Verdict = Literal["better", "worse", "cannot tell"]
_VERDICTS: dict[str, Verdict] = {"faster": "better", "slower": "worse", "cannot tell": "cannot tell"}


class Spread(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Median of `count` samples and the interval that holds it with that confidence."""

    median: float
    low: float
    high: float
    confidence: float
    count: int

    @classmethod
    def of(cls, summary: Summary) -> Spread:
        interval = summary.interval
        return cls(summary.median, interval.low, interval.high, interval.confidence, summary.count)


class Compared(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One figure with a technique and without it. `ratio`: how many times better it is with it, pair by pair: above 1
    is better whatever the unit.
    """

    unit: str
    with_it: Spread
    without: Spread
    ratio: Spread
    verdict: Verdict


class Quality(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Answers on the calibration text against the reference logits: mean KL divergence in nats with the half width of
    its 95 % interval, share of equal best tokens, perplexity; and the same of the model without the technique.

    moved  mean KL(without ‖ with): what the technique itself does
    """

    tokens: int
    kl: float
    kl_error: float
    top1: float
    perplexity: float
    kl_without: float
    top1_without: float
    perplexity_without: float
    moved: float


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One technique.

    status         measured; else that of the technique, `reason` says why
    work           what was given to both models; `rounds` of it
    under          options of both models that are not the usual ones, in words
    planned_bytes  the memory plan with it, and without it
    resident_bytes by how much the process grew while each model was loaded and did its first work
    energy         None where the machine cannot tell and nothing is estimated; `energy_note` says what it is
    equal_answers  share of requests whose greedy tokens are the same both ways
    """

    name: str
    title: str
    category: str
    exact: bool
    status: Literal["measured", "dormant", "not applicable"]
    reason: str
    work: str = ""
    rounds: int = 0
    under: str = ""
    first_token: Compared | None = None
    per_token: Compared | None = None
    throughput: Compared | None = None
    planned_bytes: tuple[int, int] | None = None
    resident_bytes: tuple[int, int] | None = None
    energy: Compared | None = None
    energy_note: str = ""
    equal_answers: float | None = None
    quality: Quality | None = None

    @property
    def given(self) -> str:
        """The work, and under what."""
        return f"{self.work}, {self.under}" if self.under else self.work

    @property
    def planned_ratio(self) -> float | None:
        """Planned memory without it by that with it."""
        return None if self.planned_bytes is None else self.planned_bytes[1] / self.planned_bytes[0]


class Sheet(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All lines of a model.

    checkpoint  what tells the model's weights from others (`loader.identity`)
    reference   what the reference logits were computed with
    options     what the caller set
    command     how to make it again
    left        techniques that were not come to
    """

    version: int
    date: str
    model: str
    plugin: str
    checkpoint: str
    reference: str
    options: dict[str, Any]
    machine: dict[str, str | int]
    command: str
    lines: list[Line]
    left: list[str]
    notes: list[str]
    seconds: float

    def encode(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n"


def compared(unit: str, with_it: Sequence[float], without: Sequence[float], *, rate: float = 0) -> Compared:
    """Pairs of costs (seconds, joules), each shown as it is; with `rate`, as `rate` by it, where more is better."""
    found: Effect = effect(with_it, without)

    def shown(costs: Sequence[float]) -> Spread:
        return Spread.of(Summary.of([rate / cost if rate else cost for cost in costs]))

    return Compared(unit, shown(with_it), shown(without), Spread.of(found.ratio), _VERDICTS[found.verdict])
