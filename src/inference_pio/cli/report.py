"""`inference-pio report`: what each technique does to a model on this machine."""

from __future__ import annotations

import shlex
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inference_pio.cli.bench_subject import engine_settings, stated, subject_of
from inference_pio.cli.engine_options import EngineOptions
from inference_pio.cli.held import within
from inference_pio.cli.options import AsJson, Model, Quiet
from inference_pio.cli.progress import round_bars
from inference_pio.cli.session import importing
from inference_pio.cli.tables import print_json, print_table
from inference_pio.errors import InferencePIOError, UsageError
from inference_pio.loader.progress import silent

if TYPE_CHECKING:
    from inference_pio.benchmarks.sheet.record import Sheet


def report(
    model: Model,
    engine: EngineOptions,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Where the files go. (reports/ in the model cache)"),
    ] = None,
    rounds: Annotated[
        int,
        typer.Option(
            "--rounds",
            metavar="N",
            help="Pairs of runs of each technique; 0 is five to eight, or fewer of slow ones.",
        ),
    ] = 0,
    technique: Annotated[
        list[str] | None,
        typer.Option("--technique", metavar="NAME", help="Only this one; may be given again. (all)"),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Small work: does it run? The figures say nothing.")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Turn each technique on and off, in turns, and write what it does to speed, memory, energy and answers as JSON,
    Markdown and one page of HTML.

    Ctrl-C ends it, and what was finished is written.
    """
    if rounds < 0:
        raise UsageError(f"--rounds must be 0 or more, got {rounds}")
    chosen = engine_settings(engine)
    within(engine, "report")
    with importing():
        from inference_pio.benchmarks.command import Settings
        from inference_pio.benchmarks.sheet.files import check_folder
        from inference_pio.benchmarks.sheet.measure import Measuring, check_techniques
        from inference_pio.loader.store import default_home
    folder = out if out is not None else default_home().absolute() / "reports"
    check_folder(folder)  # minutes of measuring would be for nothing
    settings = Settings(
        model=model, quick=quick, rounds=rounds, techniques=check_techniques(technique or ()), **chosen
    )
    subject = subject_of(model, engine, quiet)
    failure: KeyboardInterrupt | InferencePIOError | None = None
    with round_bars(quiet) as bars, redirect_stdout(sys.stderr):
        measuring = Measuring(subject.found.suite, replace(settings, on_round=bars or silent))
        try:
            measuring.run()
        except (KeyboardInterrupt, InferencePIOError) as why:
            failure = why
    sheet = measuring.sheet(stated(settings), _again(model))
    if sheet.lines:
        _keep(sheet, folder, as_json)
    if failure is not None:
        if sheet.lines:
            print(f"not measured: {', '.join(sheet.left)}", file=sys.stderr)
        raise failure


def _keep(sheet: Sheet, folder: Path, as_json: bool) -> None:
    from inference_pio.benchmarks.sheet.files import write_sheet

    paths = write_sheet(sheet, folder)
    _show(sheet, as_json)
    for path in paths:
        print(f"written: {path}", file=sys.stderr)


def _again(model: str) -> str:
    """The command line that was typed, or, where a program called, the plain one."""
    typed = sys.argv[1:] if sys.argv[1:2] == ["report"] else ["report", model]
    return shlex.join(["inference-pio", *typed])


def _show(sheet: Sheet, as_json: bool) -> None:
    import msgspec

    from inference_pio.benchmarks.sheet.words import MISSING, idle, measured, remarks, worth

    if as_json:
        print_json(msgspec.to_builtins(sheet))
        return
    print_table(
        [
            "technique",
            "first token",
            "time per token",
            "throughput",
            "memory",
            "energy",
            "KL moved",
            "equal answers",
        ],
        [
            (
                line.name,
                *(
                    worth(found) if found else MISSING
                    for found in (line.first_token, line.per_token, line.throughput)
                ),
                f"{line.planned_ratio:.2f}×" if line.planned_ratio else MISSING,
                worth(line.energy) if line.energy else MISSING,
                f"{line.quality.moved:.2g}" if line.quality else MISSING,
                f"{line.equal_answers:.0%}" if line.equal_answers is not None else MISSING,
            )
            for line in measured(sheet)
        ],
    )
    for name, status, reason in idle(sheet):
        print(f"{name}: {status}: {reason}")
    print()
    for one in remarks(sheet):
        print(one)
