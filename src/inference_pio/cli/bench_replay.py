"""`inference-pio bench replay`: recorded traffic against a model, and how much of it was answered in time."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Annotated

import typer

from inference_pio.cli.bench_subject import engine_settings, subject_of
from inference_pio.cli.engine_options import EngineOptions
from inference_pio.cli.held import within
from inference_pio.cli.options import AsJson, Model, Quiet
from inference_pio.cli.progress import round_bars
from inference_pio.cli.session import importing
from inference_pio.cli.tables import print_json
from inference_pio.loader.progress import silent


@dataclass(frozen=True)
class ReplayOptions:
    """What is played, and what counts as in time."""

    trace: Annotated[
        str,
        typer.Option(
            "--trace",
            metavar="TRACE",
            help="azure-code, azure-conv or mooncake (excerpts that come with the package), or a file: Azure's CSV or "
            "Mooncake's JSON lines, .gz or not.",
        ),
    ] = "azure-conv"
    scale: Annotated[
        int, typer.Option("--scale", metavar="X", help="Prompts and answers of 1/X of the tokens.")
    ] = 16
    speed: Annotated[
        float, typer.Option("--speed", metavar="X", help="Play X times as fast: 0.5 takes twice as long.")
    ] = 1.0
    seconds: Annotated[
        float, typer.Option("--seconds", metavar="S", help="Requests of so long; answers may take longer.")
    ] = 60.0
    ttft: Annotated[float, typer.Option("--ttft", metavar="MS", help="Target: until the first token.")] = (
        1000.0
    )
    tpot: Annotated[
        float, typer.Option("--tpot", metavar="MS", help="Target: each token after it, on average.")
    ] = 100.0


def replay(
    model: Model, played: ReplayOptions, engine: EngineOptions, as_json: AsJson = False, quiet: Quiet = False
) -> None:
    """Play recorded traffic at its times: what is answered within both targets is goodput.

    Requests come when the trace says, answered or not, and times count from there. Tokens are random; prompts share
    what the trace says they share. --json has every request. Ctrl-C ends it, and what has ended is reported.
    """
    engine.runtime_options(1)  # wrong values are told before anything is imported
    within(engine, "bench replay")
    with importing():
        from inference_pio.benchmarks.command import Settings
        from inference_pio.benchmarks.replay import Replaying, measure
    asked = Replaying(
        played.trace, played.scale, played.speed, played.seconds, ttft_ms=played.ttft, tpot_ms=played.tpot
    )
    asked.requests()  # a wrong trace is told before the model is looked for
    subject = subject_of(model, engine, quiet)
    with round_bars(quiet) as bars, redirect_stdout(sys.stderr):
        settings = Settings(model=model, on_round=bars or silent, **engine_settings(engine))
        outcome = measure(subject.found.suite, settings, asked)
    if as_json:
        print_json(outcome.as_dict())
    else:
        outcome.report.print(as_json=False)
    if outcome.interrupted is not None:
        raise outcome.interrupted
