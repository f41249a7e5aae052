"""A sheet as Markdown: what docs/benchmarks keeps."""

from __future__ import annotations

from collections.abc import Sequence

from inference_pio.benchmarks.sheet.record import Sheet
from inference_pio.benchmarks.sheet.words import HEADER, cells, idle, in_short, measured, remarks


def markdown(sheet: Sheet) -> str:
    """Tables of what was measured and of what did not act, and where the figures come from."""
    facts = ", ".join(f"{name} {value}" for name, value in sheet.machine.items())
    parts = [f"# Techniques: {sheet.model}"]
    if short := in_short(sheet):
        parts.append("\n".join(f"* {one}" for one in short))
    parts.append("Figures are without → with the technique.")
    if rows := [cells(line) for line in measured(sheet)]:
        parts.append(table(HEADER, rows))
        work = [(line.name, line.given, str(line.rounds), line.reason) for line in measured(sheet)]
        parts.append(table(("technique", "work", "pairs", "at work because"), work))
    if rest := idle(sheet):
        parts += ["## Not at work here", table(("technique", "status", "why"), rest)]
    parts += ["\n".join(f"* {one}" for one in remarks(sheet))]
    parts += [
        f"Measured in {sheet.seconds:,.0f} s on: {facts}.",
        f"Again: `{sheet.command}`",
    ]
    return "\n\n".join(parts) + "\n"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in GitHub's Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
