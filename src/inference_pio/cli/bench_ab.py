"""`inference-pio bench ab`: one model under two sets of options, in turns."""

from __future__ import annotations

import shlex
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from typing import Annotated, Any, cast

import typer

from inference_pio.cli.bench_subject import engine_settings, subject_of
from inference_pio.cli.engine_options import EngineOptions
from inference_pio.cli.flat import flat
from inference_pio.cli.held import within
from inference_pio.cli.limit_options import LimitOptions
from inference_pio.cli.options import AsJson, Model, Quiet
from inference_pio.cli.progress import round_bars
from inference_pio.cli.session import importing
from inference_pio.cli.text import one_line
from inference_pio.errors import UsageError
from inference_pio.loader.progress import silent

_USAGE_ERROR = cast(type[Exception], typer.BadParameter.__base__)


def ab(
    model: Model,
    a: Annotated[
        str,
        typer.Option(
            "-A", metavar="OPTIONS", help='Options of `run` in quotes: "--kv-cache-dtype bfloat16".'
        ),
    ] = "",
    b: Annotated[str, typer.Option("-B", metavar="OPTIONS", help="The same, to be compared with A.")] = "",
    quick: Annotated[bool, typer.Option("--quick", help="Small workloads: does it run?")] = False,
    rounds: Annotated[int, typer.Option("--rounds", metavar="N", help="Timed rounds; 0 is eight.")] = 0,
    as_json: AsJson = False,
    quiet: Quiet = False,
    *,
    limits: LimitOptions,
) -> None:
    """Measure a model under two sets of options, round by round in turns: what does B change?

    Both are in memory at once. Rounds in turns meet whatever the machine is busy with alike: this tells smaller
    differences than two runs one after the other (`bench diff`).
    """
    if rounds < 0:
        raise UsageError(f"--rounds must be 0 or more, got {rounds}")
    engines = [_engine(name, text) for name, text in (("-A", a), ("-B", b))]
    if any(engine.stated() or engine.security_level or engine.enforcement for engine in engines):
        raise UsageError("limits hold for both: name them outside of -A and -B")
    within(limits, "bench ab")
    chosen = [engine_settings(engine) for engine in engines]
    if chosen[0] == chosen[1] and engines[0].plugin == engines[1].plugin:
        raise UsageError("-A and -B ask for the same: name an option in one of them")
    with importing():
        from inference_pio.benchmarks import side_by_side
        from inference_pio.benchmarks.command import QUICK, Settings
    subjects = [subject_of(model, engine, quiet) for engine in engines]
    with round_bars(quiet) as bars, redirect_stdout(sys.stderr):
        first, second = (
            replace(Settings(model=model, quick=quick, rounds=rounds), **one, on_round=bars or silent)
            for one in chosen
        )
        report = side_by_side.measure(subjects[0].found.suite, first, second, subjects[1].plugin)
    report.notes += [f"A {a or '(defaults)'}", f"B {b or '(defaults)'}", *subjects[0].found.notes]
    report.notes += [QUICK] if quick else []
    report.print(as_json=as_json)


def _engine(name: str, text: str) -> EngineOptions:
    """The options that a text holds, as the command line would read them.

    Raises:
        UsageError: it holds anything else.
    """
    parser = typer.Typer(add_completion=False)
    parser.command()(flat(_nothing_more))
    try:
        context = typer.main.get_command(parser).make_context(name, shlex.split(text))
    except (ValueError, _USAGE_ERROR) as error:
        said = error.format_message() if isinstance(error, _USAGE_ERROR) else error  # type: ignore[attr-defined]
        raise UsageError(f"{name}: {one_line(str(said)).rstrip('.')}") from error
    values: dict[str, Any] = context.params
    return EngineOptions(**values)


def _nothing_more(engine: EngineOptions) -> None:
    """A command whose options are the engine's."""
    engine.runtime_options(1)
