"""Tables and JSON on stdout."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

_WIDE = 240


def print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=2))


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    right: Collection[str] = (),
    whole: Collection[str] = (),
) -> None:
    """Aligned columns; long cells wrap in a terminal and not in a pipe.

    Args:
        right: columns of numbers.
        whole: columns whose cells are never cut into lines.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(
            column,
            justify="right" if column in right else "left",
            no_wrap=column in right or column in whole,
            overflow="fold",
            min_width=len(column),
        )
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # Text: square brackets in a cell are no markup
    _print(table)


def print_facts(facts: Iterable[tuple[str, str]], title: str = "") -> None:
    """Two columns: what, and its value."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(Text(name, style="bold"), Text(value))
    if title:
        _print(Text(title, style="bold underline"))
    _print(table)


def _print(what: Table | Text) -> None:
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _WIDE
    console = Console(file=sys.stdout, width=width, highlight=False)
    # A table that cannot be made narrow enough is not cut off: the terminal wraps its lines.
    console.width = max(
        console.width, Measurement.get(console, console.options.update(width=_WIDE), what).minimum
    )
    with console.capture() as shown:
        console.print(what)
    print("\n".join(line.rstrip() for line in shown.get().splitlines()))
