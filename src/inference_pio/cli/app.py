"""The verbs put together, and usage errors in one line."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Annotated, cast

import typer

from inference_pio import __version__
from inference_pio.cli import (
    bench,
    calibrate,
    chat,
    doctor,
    models,
    new_model,
    plan,
    plugins,
    probe,
    quantize,
    report,
    run,
    tune,
    verify,
)
from inference_pio.cli.flat import flat
from inference_pio.cli.text import one_line
from inference_pio.errors import UsageError

app = typer.Typer(
    name="inference-pio",
    help="Run open language models on this machine.",
    add_completion=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)
app.command("run")(flat(run.run))
app.command("chat")(flat(chat.chat))
app.add_typer(models.app, name="models")
app.command("plugins")(plugins.plugins)
app.command("doctor")(doctor.doctor)
app.command("probe")(probe.probe)
app.command("tune")(flat(tune.tune))
app.command("plan")(flat(plan.plan))
app.command("calibrate")(calibrate.calibrate)
app.add_typer(bench.app, name="bench")
app.command("report")(flat(report.report))
app.command("quantize")(quantize.quantize)
app.command("verify")(verify.verify)
app.command("new-model")(new_model.new_model)

# typer brings its own copy of click; BadParameter is the name that it exports, and its base is every usage error.
_USAGE_ERROR = cast(type[Exception], typer.BadParameter.__base__)

_POSSIBLE = re.compile(r"\.? \(?(?:Possible options: |Did you mean (?:one of: )?)([^)?]*)\)?\??")


def execute(arguments: Sequence[str]) -> int:
    """Run one command line and give its exit code.

    Raises:
        InferencePIOError: what the verb could not do; options that do not parse are a `UsageError`.
    """
    command = typer.main.get_command(app)
    # Not `command.main`, which has its own ideas of Ctrl-C and of a reader that leaves.
    try:
        with command.make_context("inference-pio", list(arguments) or ["--help"]) as context:
            command.invoke(context)
    except typer.Exit as done:
        return done.exit_code
    except _USAGE_ERROR as error:
        raise UsageError(_usage(error)) from error
    return 0


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", is_eager=True, callback=lambda on: _version(on)),
    ] = False,
) -> None:
    pass


def _version(asked: bool) -> None:
    if asked:
        sys.stdout.write(f"inference-pio {__version__}\n")
        raise typer.Exit


def _usage(error: Exception) -> str:
    """What click says, with the nearest name and the command whose help explains it."""
    message = one_line(error.format_message()).replace("Value error, ", "")  # type: ignore[attr-defined]
    message = _POSSIBLE.sub(r"; did you mean \1?", message)
    context = error.ctx  # type: ignore[attr-defined]
    path = context.command_path if context is not None else "inference-pio"
    return f"{message[:1].lower()}{message[1:].rstrip('.')} (see `{path} --help`)"
