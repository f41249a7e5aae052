"""What the measurements say: figures with their spread, ratios of ours to others', bars met or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from inference_pio.benchmarks.samples import Effect, Summary, effect
from peers.measure import Measured
from peers.replies import Ready, Reply
from peers.rows import OURS, Row

# Rounding parts some first tokens, most of all on random prompts; a different model parts nearly all.
SAME_MODEL = 0.5


@dataclass(frozen=True)
class Against:
    """One engine in one row. `ours` is how many times as fast we are, round by round; None for ourselves."""

    figure: Summary
    ours: Effect | None
    same_first_tokens: float | None


@dataclass(frozen=True)
class Result:
    """One row; who is missing, for what reason; `met` is None where the bar's engine or ours was not measured."""

    row: Row
    engines: dict[str, Against]
    missing: dict[str, str]
    idle_cores: float

    @property
    def met(self) -> bool | None:
        bar, ours = self.row.bar, self.engines.get(OURS)
        if ours is None:
            return None
        if bar.peer is None:
            return ours.figure.median <= bar.least
        theirs = self.engines.get(bar.peer)
        return theirs.ours.ratio.median >= bar.least if theirs and theirs.ours else None

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.row.name,
            "model": self.row.model,
            "title": self.row.title,
            "workload": str(self.row.workload),
            "counts": self.row.counts,
            "unit": self.row.unit,
            "bar": str(self.row.bar),
            "met": self.met,
            "engines": {name: asdict(against) for name, against in self.engines.items()},
            "missing": self.missing,
            "idle_cores": self.idle_cores,
        }


@dataclass
class Comparison:
    """A whole run; `ready` is what the engines said of themselves, `unavailable` who could not be set up, and why."""

    results: list[Result] = field(default_factory=list)
    ready: dict[str, Ready] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)

    @property
    def all_met(self) -> bool:
        """Of the bars whose engine was asked for; one that could not be measured is not met."""
        return all(result.met is True for result in self.results if self._asked_for(result))

    def _asked_for(self, result: Result) -> bool:
        peer = result.row.bar.peer
        return peer is None or peer in result.engines or peer in result.missing


def result_of(measured: Measured, unavailable: Mapping[str, str]) -> Result:
    """Figures of one row; whoever failed in it, or could not be set up for it, is missing."""
    ours = measured.replies.get(OURS)
    engines = {
        name: _against(measured.row, name, ours, replies) for name, replies in measured.replies.items()
    }
    return Result(measured.row, engines, {**unavailable, **measured.failed}, measured.idle_cores)


def _against(row: Row, name: str, ours: Sequence[Reply] | None, theirs: Sequence[Reply]) -> Against:
    seconds = [row.seconds(reply) for reply in theirs]
    figure = Summary.of([row.figure(one) for one in seconds])
    if ours is None or name == OURS:
        return Against(figure, None, None)
    return Against(figure, effect([row.seconds(reply) for reply in ours], seconds), _same_first(ours, theirs))


def _same_first(ours: Sequence[Reply], theirs: Sequence[Reply]) -> float:
    """Share of answers that begin alike: both ran the same model."""
    pairs = [
        a[0] == b[0]
        for one, other in zip(ours, theirs, strict=True)
        for a, b in zip(one.tokens, other.tokens, strict=True)
    ]
    return sum(pairs) / len(pairs)
