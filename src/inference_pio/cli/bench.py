"""`inference-pio bench`: a model's six benchmarks, the runs that were kept, and one run beside another."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from inference_pio.cli import bench_ab, bench_history, bench_replay
from inference_pio.cli.bench_subject import Subject, engine_settings, subject_of
from inference_pio.cli.engine_options import EngineOptions
from inference_pio.cli.flat import flat
from inference_pio.cli.held import within
from inference_pio.cli.options import AsJson, Model, Quiet
from inference_pio.cli.progress import Report as Progress
from inference_pio.cli.progress import round_bars
from inference_pio.cli.session import importing
from inference_pio.cli.tables import print_json, print_table
from inference_pio.errors import InferencePIOError, UsageError

if TYPE_CHECKING:
    from inference_pio.benchmarks.command import Settings
    from inference_pio.benchmarks.report import Report
    from inference_pio.benchmarks.six import Benchmark
    from inference_pio.benchmarks.workload import Suite

_MEASURE = "run"
_ACCURACY = "Accuracy"
_POWER = "Power efficiency"


class _ModelOrVerb(TyperGroup):
    """`bench MODEL` measures; `bench history`, `diff`, `ab` and `replay` are verbs of their own."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or args[0] not in self.commands:
            args = [_MEASURE, *(args or ["--help"])]
        return super().parse_args(ctx, args)


app = typer.Typer(help="Measure a model; compare runs.", cls=_ModelOrVerb)


@dataclass(frozen=True)
class MeasuringOptions:
    """How much is measured, and what is kept."""

    quick: Annotated[
        bool, typer.Option("--quick", help="Small workloads: does it run? The figures say nothing.")
    ] = False
    rounds: Annotated[
        int,
        typer.Option("--rounds", metavar="N", help="Timed rounds; 0 is as many as each benchmark needs."),
    ] = 0
    show: Annotated[
        bool,
        typer.Option("--list", help="Show the benchmarks and what they give to the model; measure none."),
    ] = False
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write the run to this file too.")
    ] = None
    technique: Annotated[
        list[str] | None,
        typer.Option(
            "--technique",
            metavar="NAME",
            help="Only this one in optimization_impact; may be given again. (all that --list shows)",
        ),
    ] = None
    keep: Annotated[
        bool, typer.Option("--keep/--no-keep", help="Keep the run in the history (`bench history`).")
    ] = True


@dataclass(frozen=True)
class AccuracyOptions:
    """What accuracy asks."""

    task: Annotated[
        list[str] | None,
        typer.Option(
            "--task",
            metavar="NAME",
            rich_help_panel=_ACCURACY,
            help="perplexity, lambada, mmlu, gsm8k or humaneval; may be given again. (all but the last)",
        ),
    ] = None
    limit: Annotated[
        int,
        typer.Option(
            "--limit",
            metavar="N",
            rich_help_panel=_ACCURACY,
            help="Questions of each task; 0 is as many as fit into about three minutes for a small model.",
        ),
    ] = 0
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="FOLDER",
            rich_help_panel=_ACCURACY,
            help="Complete test sets instead of the subsets that come with the package.",
        ),
    ] = None
    completions: Annotated[
        Path | None,
        typer.Option(
            "--completions",
            metavar="FILE",
            rich_help_panel=_ACCURACY,
            help="Where --task humaneval writes its completions. They are not run.",
        ),
    ] = None


@dataclass(frozen=True)
class PowerOptions:
    """What power efficiency assumes."""

    watts_per_core: Annotated[
        float | None,
        typer.Option(
            "--watts-per-core",
            metavar="W",
            rich_help_panel=_POWER,
            help="What a busy core takes, for the estimate where nothing can be read.",
        ),
    ] = None
    idle_seconds: Annotated[
        float | None,
        typer.Option(
            "--idle-seconds",
            metavar="S",
            rich_help_panel=_POWER,
            help="How long the idle machine is watched first.",
        ),
    ] = None


def run(
    model: Model,
    measuring: MeasuringOptions,
    accuracy: AccuracyOptions,
    power: PowerOptions,
    engine: EngineOptions,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...",
            help="throughput, inference_speed, memory_usage, power_efficiency, optimization_impact, accuracy; without "
            "one all but the last two.",
        ),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Measure a model: `bench MODEL [NAME]...`. Further verbs: `bench history`, `bench diff`, `bench ab`,
    `bench replay`.

    The model's plugin says what it is measured on (--list). Every run is kept. Ctrl-C ends it, and what was finished
    is shown and kept. Without a NAME, accuracy and optimization_impact are left out: they take minutes.
    """
    engine.runtime_options(1)  # wrong values are told before anything is imported
    within(engine, "bench")
    if measuring.out is not None:
        bench_history.check_out(measuring.out)
    with importing():
        from inference_pio.benchmarks import six
    settings = _settings(model, measuring, accuracy, power, engine)
    benchmarks = six.chosen(names or ())
    subject = subject_of(model, engine, quiet)
    if measuring.show:
        _list(six.SIX, subject.found.suite, as_json)
        return
    done: list[Report] = []
    failure = _measure(done, benchmarks, subject, settings, quiet=quiet, as_json=as_json)
    record = subject.record(done, settings, finished=failure is None)
    if done:
        bench_history.keep(record, measuring.out, in_history=measuring.keep, quiet=quiet)
    if as_json and done:
        print_json(record.as_dict())
    if not names and not quiet:
        left = ", ".join(one.name for one in six.SIX if one not in benchmarks)
        print(f"left out: {left} (name them to measure them)", file=sys.stderr)
    if failure is not None:
        print(f"not measured: {', '.join(one.name for one in benchmarks[len(done) :])}", file=sys.stderr)
        raise failure


app.command(_MEASURE)(flat(run))
app.command("history")(bench_history.history)
app.command("diff")(bench_history.diff)
app.command("ab")(flat(bench_ab.ab))
app.command("replay")(flat(bench_replay.replay))


def _settings(
    model: str,
    measuring: MeasuringOptions,
    accuracy: AccuracyOptions,
    power: PowerOptions,
    engine: EngineOptions,
) -> Settings:
    """Wrong values raise `UsageError` here."""
    from inference_pio.benchmarks.choices import USUAL_TASKS, PowerChoice, TaskChoice
    from inference_pio.benchmarks.command import Settings

    if measuring.rounds < 0:
        raise UsageError(f"--rounds must be 0 or more, got {measuring.rounds}")
    given = {name: value for name, value in vars(power).items() if value is not None}
    return Settings(
        model=model,
        quick=measuring.quick,
        rounds=measuring.rounds,
        tasks=TaskChoice(
            tuple(accuracy.task or USUAL_TASKS),
            accuracy.limit,
            str(accuracy.data or ""),
            str(accuracy.completions or ""),
        ),
        power=PowerChoice(**given),
        techniques=tuple(measuring.technique or ()),
        **engine_settings(engine),
    )


def _measure(
    done: list[Report],
    benchmarks: Sequence[Benchmark],
    subject: Subject,
    settings: Settings,
    *,
    quiet: bool,
    as_json: bool,
) -> KeyboardInterrupt | InferencePIOError | None:
    """Reports into `done`, each shown as soon as it is there; what ended it before the last one, or None."""
    from dataclasses import replace

    from inference_pio.benchmarks import six
    from inference_pio.benchmarks.command import QUICK

    for benchmark in benchmarks:
        try:
            with round_bars(quiet) as bars:
                on_round: Progress = bars or settings.on_round
                with redirect_stdout(sys.stderr):  # whatever a plugin prints: stdout has the reports
                    report = six.run(benchmark, subject.found.suite, replace(settings, on_round=on_round))
        except (KeyboardInterrupt, InferencePIOError) as why:
            return why
        report.notes += [*subject.found.notes, *([QUICK] if settings.quick else [])]
        done.append(report)
        if not as_json:
            report.print(as_json=False)
            print(flush=True)
    return None


def _list(benchmarks: Sequence[Benchmark], suite: Suite, as_json: bool) -> None:
    if as_json:
        print_json(
            [
                {
                    "name": one.name,
                    "question": one.question,
                    "work": one.work(suite),
                    "in_a_usual_run": one.usual,
                }
                for one in benchmarks
            ]
        )
        return
    print_table(
        ["benchmark", "usual", "measures", "work"],
        [(one.name, "yes" if one.usual else "", one.question, one.work(suite)) for one in benchmarks],
    )
