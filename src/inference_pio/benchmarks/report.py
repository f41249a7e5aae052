"""The result of a benchmark: for a person as a table, for a program as JSON."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict, dataclass, field
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from inference_pio.benchmarks.environment import environment
from inference_pio.benchmarks.samples import Summary
from inference_pio.metrics import PerformanceMetrics

_FILE_WIDTH = 150


@dataclass(frozen=True)
class Row:
    """One measured figure. `note` says what it means, or why it is missing."""

    what: str
    unit: str
    summary: Summary
    note: str = ""


@dataclass
class Report:
    """`metrics` holds the standard's record; what this benchmark does not measure, or cannot here, is NaN."""

    benchmark: str
    model: str
    rows: list[Row] = field(default_factory=list)
    metrics: PerformanceMetrics = field(
        default_factory=lambda: PerformanceMetrics(math.nan, math.nan, math.nan, math.nan, math.nan)
    )
    notes: list[str] = field(default_factory=list)
    environment: dict[str, str | int] = field(default_factory=environment)

    def add(self, what: str, unit: str, measured: Summary | float, note: str = "") -> None:
        """One more row; a single number is a summary of one sample, NaN one of none."""
        if isinstance(measured, float):
            measured = Summary.missing() if math.isnan(measured) else Summary.of([measured])
        self.rows.append(Row(what, unit, measured, note))

    def as_dict(self) -> dict[str, Any]:
        """Plain data; None where a figure is NaN, which JSON does not have."""
        plain: dict[str, Any] = _without_nan(asdict(self))
        return plain

    def print(self, *, as_json: bool) -> None:
        """To standard output."""
        if as_json:
            print(json.dumps(self.as_dict(), indent=2, ensure_ascii=False, allow_nan=False))
        else:
            # Nobody wraps a file's lines at 80 columns.
            self.print_table(Console() if sys.stdout.isatty() else Console(width=_FILE_WIDTH))

    def print_table(self, console: Console) -> None:
        repeated = any(row.summary.count > 1 for row in self.rows)
        table = Table(title=f"{self.benchmark}: {self.model}", title_justify="left", box=box.SIMPLE_HEAD)
        spread = ("min – max", "median's interval", "n") if repeated else ()
        for name in ("", "median" if repeated else "", "unit", *spread, "note"):
            table.add_column(name, justify="left" if name in ("", "unit", "note") else "right")
        for row in self.rows:
            cells = _spread(row.summary) if repeated else ()
            table.add_row(row.what, _number(row.summary.median), row.unit, *cells, row.note)
        console.print(table)
        for note in self.notes:
            console.print(note, highlight=False)
        facts = ", ".join(f"{name} {value}" for name, value in self.environment.items())
        console.print(f"measured on: {facts}", highlight=False)


def _spread(summary: Summary) -> tuple[str, str, str]:
    if summary.count < 2:
        return "", "", str(summary.count)
    interval = summary.interval
    return (
        f"{_number(summary.minimum)} – {_number(summary.maximum)}",
        f"{_number(interval.low)} – {_number(interval.high)} ({interval.confidence:.0%})",
        str(summary.count),
    )


def _number(value: float) -> str:
    """Four significant digits."""
    if math.isnan(value):
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
