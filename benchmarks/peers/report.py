"""The comparison as a person reads it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from inference_pio.benchmarks.samples import Summary
from peers.results import SAME_MODEL, Against, Comparison, Result
from peers.rows import OURS

_FILE_WIDTH = 160
_MET = {True: "met", False: "NOT MET", None: "not measured"}
# A core that idle workers kept this busy was not there for the one that was measured.
_IDLE_CORES = 0.05


def method(rounds: int, threads: int) -> list[str]:
    """In words, how everything was measured."""
    return [
        f"every engine in a process of its own with {threads} threads; those not asked are loaded and asleep",
        f"{rounds} rounds after one to warm up, in turns (A B C, C B A, …); figures are medians (minimum – maximum), "
        "ratios are of the same round; 'faster' and 'slower' take five rounds and a 90 % interval on one side of 1",
        "random token ids as prompts, new ones every round (no prefix cache can help), the same for every engine; "
        "greedy; no end of text; exactly the stated number of tokens",
        "a rate is tokens by the time from the call to the last token of all sequences, the prompts' share included; "
        "'decode after' counts the tokens after the first, by the time after it",
    ]


def print_comparison(comparison: Comparison, lines: Sequence[str]) -> None:
    """To standard output: the table, who is missing and why, how it was measured, what to doubt."""
    console = Console() if sys.stdout.isatty() else Console(width=_FILE_WIDTH)
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("", "work", "engine", "median (min – max)", "ours to theirs", "ours is", "bar", ""):
        table.add_column(name, no_wrap=True)
    for result in comparison.results:
        row, decides = result.row, result.row.bar.peer or OURS
        head = (row.name, str(row.workload).removesuffix(" tokens"))
        for name, against in result.engines.items():
            barred = name == decides
            table.add_row(
                *head,
                name,
                f"{shown(against.figure)} {row.unit}",
                *_ratio(against),
                str(row.bar) if barred else "",
                _MET[result.met] if barred else "",
            )
            head = ("", "")
        if decides not in result.engines:
            table.add_row(*head, decides, "–", "", "", str(row.bar), _MET[result.met])
        table.add_section()
    console.print(table)
    for line in (*_notes(comparison), *lines):
        console.print(f"  {line}", highlight=False)


def shown(summary: Summary) -> str:
    """Three figures, as many digits as they deserve."""
    low, middle, high = (
        f"{value:,.0f}" if summary.median >= 100 else f"{value:.3g}"
        for value in (summary.minimum, summary.median, summary.maximum)
    )
    return f"{middle} ({low} – {high})"


def _ratio(against: Against) -> tuple[str, str]:
    """How many times as fast ours is, and whether the rounds can tell."""
    if against.ours is None:
        return "", ""
    ratio = against.ours.ratio
    return f"{ratio.median:.2f} ({ratio.minimum:.2f} – {ratio.maximum:.2f})", against.ours.verdict


def _notes(comparison: Comparison) -> list[str]:
    notes = [f"{name} was skipped: {reason}" for name, reason in comparison.unavailable.items()]
    for result in comparison.results:
        notes += [
            f"{result.row.name}: {name} failed: {reason}"
            for name, reason in result.missing.items()
            if name not in comparison.unavailable
        ]
        notes += _doubts(result)
    notes += [f"{name} {ready.version}: {ready.described}" for name, ready in comparison.ready.items()]
    return notes


def _doubts(result: Result) -> list[str]:
    doubts = [
        f"{result.row.name}: only {against.same_first_tokens:.0%} of {name}'s answers begin like ours: "
        "are its weights the file's?"
        for name, against in result.engines.items()
        if against.same_first_tokens is not None and against.same_first_tokens < SAME_MODEL
    ]
    if result.idle_cores > _IDLE_CORES:
        doubts.append(
            f"{result.row.name}: engines that were not asked kept {result.idle_cores:.2f} cores busy: not a fair run"
        )
    return doubts
