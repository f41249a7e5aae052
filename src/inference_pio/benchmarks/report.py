"""The result of a benchmark: for a person as a table, for a program as JSON."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table

from inference_pio.benchmarks.environment import environment
from inference_pio.benchmarks.samples import Summary
from inference_pio.metrics import PerformanceMetrics

_FILE_WIDTH = 150
Better = Literal["more", "less", ""]
# Where nothing else is said: which way a figure of this unit is better.
_BETTER: dict[str, Better] = {"tok/s": "more", "ms": "less", "s": "less", "J/token": "less", "GB": "less"}


@dataclass(frozen=True)
class Row:
    """One measured figure.

    note     what it means, or why it is missing
    better   which way it is better; empty where neither is
    counted  it does not scatter from run to run: one reading can be compared with another
    """

    what: str
    unit: str
    summary: Summary
    note: str = ""
    better: Better = ""
    counted: bool = False


@dataclass
class Report:
    """`metrics` holds the standard's record; what this benchmark does not measure, or cannot here, is NaN.

    work     what was given to the model, by the names that the figures go by: other work, other figures
    seconds  the benchmark took, loading included; NaN where nobody looked at the clock
    figure   what the number of a row is: most are medians
    """

    benchmark: str
    model: str
    rows: list[Row] = field(default_factory=list)
    metrics: PerformanceMetrics = field(default_factory=PerformanceMetrics.unmeasured)
    notes: list[str] = field(default_factory=list)
    environment: dict[str, str | int] = field(default_factory=environment)
    work: dict[str, str] = field(default_factory=dict)
    seconds: float = math.nan
    figure: str = "median"

    def add(
        self,
        what: str,
        unit: str,
        measured: Summary | float,
        note: str = "",
        *,
        better: Better | None = None,
        counted: bool = False,
    ) -> None:
        """One more row; a single number is a summary of one sample, NaN one of none. `better` follows from the unit
        where it is not given."""
        if isinstance(measured, float):
            measured = Summary.missing() if math.isnan(measured) else Summary.of([measured])
        better = _BETTER.get(unit, "") if better is None else better
        self.rows.append(Row(what, unit, measured, note, better, counted))

    def as_dict(self) -> dict[str, Any]:
        """Plain data; None where a figure is NaN, which JSON does not have."""
        plain: dict[str, Any] = without_nan(asdict(self))
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
        wide = ("min – max", f"{self.figure}'s interval", "n") if repeated else ()
        for name in ("", self.figure if repeated else "", "unit", *wide, "note"):
            table.add_column(name, justify="left" if name in ("", "unit", "note") else "right")
        for row in self.rows:
            cells = spread(row.summary) if repeated else ()
            table.add_row(row.what, number(row.summary.median), row.unit, *cells, row.note)
        console.print(table)
        for note in self.notes:
            console.print(note, highlight=False)
        facts = ", ".join(f"{name} {value}" for name, value in self.environment.items())
        console.print(f"measured on: {facts}", highlight=False)


def spread(summary: Summary) -> tuple[str, str, str]:
    """Extremes, interval and number of samples, as a table shows them."""
    if summary.count < 2:
        return "", "", str(summary.count)
    interval = summary.interval
    return (
        f"{number(summary.minimum)} – {number(summary.maximum)}",
        f"{number(interval.low)} – {number(interval.high)} ({interval.confidence:.0%})",
        str(summary.count),
    )


def number(value: float) -> str:
    """Four significant digits."""
    if math.isnan(value):
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def without_nan(value: Any) -> Any:
    """Plain data in which None stands for what is not finite."""
    if isinstance(value, dict):
        return {name: without_nan(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
