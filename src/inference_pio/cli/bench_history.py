"""`inference-pio bench history` and `bench diff`: runs that were kept."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from inference_pio.cli.options import AsJson
from inference_pio.cli.session import importing
from inference_pio.cli.tables import print_json, print_table
from inference_pio.cli.text import one_line
from inference_pio.errors import UsageError
from inference_pio.loader.partial import write_atomically

if TYPE_CHECKING:
    from inference_pio.benchmarks.compare import Change
    from inference_pio.benchmarks.records import Record

_HEADLINES = (
    ("throughput", "output", "tok/s, batch"),
    ("inference_speed", "prefill", "tok/s, prefill"),
    ("inference_speed", "decode", "tok/s, decode"),
    ("memory_usage", "process, peak", "GB, peak"),
)

Run = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="A file, an id of `bench history`, `last`, or `last~N`: N runs before the last."
    ),
]


def keep(record: Record, out: Path | None, *, in_history: bool, quiet: bool) -> None:
    """Write a run to the history and to a file, and say where."""
    from inference_pio.benchmarks.history import History

    if in_history:
        kept = History().save(record)
        if not quiet:
            print(f"kept as {kept}", file=sys.stderr)
    if out is not None:
        try:
            if out.exists() and not out.is_file():  # a pipe or a device, which stays one
                out.write_bytes(record.encode())
            else:
                write_atomically(out, record.encode())
        except OSError as error:
            raise UsageError(f"{out} cannot be written: {error.strerror}") from error


def check_out(out: Path) -> None:
    """Before minutes of measuring: can a run be written to that file?

    Raises:
        UsageError: not so.
    """
    if out.is_dir():
        raise UsageError(f"--out {out} is a folder: name a file in it")
    if not out.absolute().parent.is_dir():
        raise UsageError(f"--out {out} cannot be written: there is no folder {out.absolute().parent}")


def history(
    model: Annotated[
        str, typer.Argument(metavar="[MODEL]", help="Only runs of this model.", show_default=False)
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Show the runs that were kept, the last one at the end."""
    with importing():
        from inference_pio.benchmarks.history import History
    kept = History()
    found = list(kept.records(model))
    if as_json:
        print_json(
            [
                {"id": run, "error": record} if isinstance(record, str) else {"id": run, **_facts(record)}
                for run, record in found
            ]
        )
        return
    if not found:
        print(f"no runs{f' of {model}' if model else ''} in {kept.folder}")
        return
    print_table(
        ["run", *(title for *_, title in _HEADLINES), "benchmarks", "options"],
        [_line(run, record) for run, record in found],
        right={title for *_, title in _HEADLINES},
        whole={"run"},
    )


def diff(
    then: Run,
    now: Run,
    model: Annotated[
        str, typer.Option("--model", metavar="MODEL", help="Whose runs last and last~N count.")
    ] = "",
    fail_on: Annotated[
        Literal["slower", "worse"] | None,
        typer.Option(
            "--fail-on", help="Exit code 1 where a speed is slower; with `worse`, where any figure is worse."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare two runs, the older one first: slower, same, faster or cannot tell, figure by figure.

    Intervals of the medians decide: apart and 5 % apart is faster or slower; their far ends within 5 % is the same.
    Runs of another machine, checkpoint or other options tell nothing of each other.
    """
    with importing():
        from inference_pio.benchmarks import history as kept
    runs = kept.History()
    a, b = runs.find(then, model), runs.find(now, model)
    changes, notes = kept.diff(a, b)
    if as_json:
        print_json({"then": _facts(a), "now": _facts(b), "notes": notes, "changes": [*map(_plain, changes)]})
    else:
        _show(a, b, changes, notes)
    failing = {"slower": {"slower"}, "worse": {"slower", "worse"}, None: set()}[fail_on]
    if any(change.word in failing for change in changes):
        raise typer.Exit(1)


def _show(then: Record, now: Record, changes: list[Change], notes: list[str]) -> None:
    from inference_pio.benchmarks.report import number

    print(f"then {then.model} {then.date}, now {now.model} {now.date}")
    if changes:
        print_table(
            ["figure", "unit", "then", "now", "times as good", "verdict"],
            [
                (
                    f"{change.benchmark}: {change.row.what}",
                    change.row.unit,
                    number(change.then.median),
                    number(change.now.median),
                    number(change.ratio),
                    f"{change.word} ({change.why})" if change.why else change.word,
                )
                for change in changes
            ],
            right={"then", "now", "times as good"},
        )
    else:
        print("the two runs have no benchmark in common")
    for note in notes:
        print(note)


def _facts(record: Record) -> dict[str, Any]:
    from inference_pio.benchmarks.report import without_nan

    plain: dict[str, Any] = without_nan(
        {
            "model": record.model,
            "plugin": record.plugin,
            "checkpoint": record.checkpoint,
            "date": record.date,
            "options": record.options,
            "finished": record.finished,
            "benchmarks": [report.benchmark for report in record.reports],
            "figures": {title: _headline(record, *place) for *place, title in _HEADLINES},
        }
    )
    return plain


def _headline(record: Record, benchmark: str, what: str) -> float:
    report = record.report(benchmark)
    rows = report.rows if report else []
    return next((row.summary.median for row in rows if row.what == what), math.nan)


def _line(run: str, record: Record | str) -> tuple[str, ...]:
    from inference_pio.benchmarks.report import number

    if isinstance(record, str):
        return (run, *("" for _ in _HEADLINES), one_line(record), "")
    figures = (number(_headline(record, *place)) for *place, _ in _HEADLINES)
    done = ", ".join(report.benchmark for report in record.reports)
    options = ", ".join(f"{name} {value}" for name, value in record.options.items())
    return run, *figures, done if record.finished else f"{done} (interrupted)", options


def _plain(change: Change) -> dict[str, Any]:
    from inference_pio.benchmarks.report import without_nan

    plain: dict[str, Any] = without_nan(
        {
            "benchmark": change.benchmark,
            "figure": change.row.what,
            "unit": change.row.unit,
            "then": change.then.median,
            "now": change.now.median,
            "ratio": change.ratio,
            "verdict": change.word,
            "why": change.why,
        }
    )
    return plain
