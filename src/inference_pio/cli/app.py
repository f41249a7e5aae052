"""The verbs put together, and usage errors in one line."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, cast

import typer

from inference_pio import __version__
from inference_pio.cli.flat import flat
from inference_pio.cli.text import one_line
from inference_pio.cli.typed import typed
from inference_pio.errors import UsageError

# In the order of `--help`. Only the module of the verb that was typed is imported.
_VERBS = {
    "run": "inference_pio.cli.run:run",
    "chat": "inference_pio.cli.chat:chat",
    "models": "inference_pio.cli.models:app",
    "plugins": "inference_pio.cli.plugins:plugins",
    "plugin": "inference_pio.cli.plugin_packages:app",
    "doctor": "inference_pio.cli.doctor:doctor",
    "probe": "inference_pio.cli.probe:probe",
    "tune": "inference_pio.cli.tune:tune",
    "plan": "inference_pio.cli.plan:plan",
    "calibrate": "inference_pio.cli.calibrate:calibrate",
    "bench": "inference_pio.cli.bench:app",
    "report": "inference_pio.cli.report:report",
    "quantize": "inference_pio.cli.quantize:quantize",
    "verify": "inference_pio.cli.verify:verify",
    "new-model": "inference_pio.cli.new_model:new_model",
}

# typer brings its own copy of click; BadParameter is the name that it exports, and its base is every usage error.
_USAGE_ERROR = cast(type[Exception], typer.BadParameter.__base__)

_POSSIBLE = re.compile(r"\.? \(?(?:Possible options: |Did you mean (?:one of: )?)([^)?]*)\)?\??")


def execute(arguments: Sequence[str]) -> int:
    """Run one command line and give its exit code.

    Raises:
        InferencePIOError: what the verb could not do; options that do not parse are a `UsageError`.
    """
    typed.set(tuple(arguments))
    command = typer.main.get_command(_program(arguments))
    # Not `command.main`, which has its own ideas of Ctrl-C and of a reader that leaves.
    try:
        with command.make_context("inference-pio", list(arguments) or ["--help"]) as context:
            command.invoke(context)
    except typer.Exit as done:
        return done.exit_code
    except _USAGE_ERROR as error:
        raise UsageError(_usage(error)) from error
    return 0


def _program(arguments: Sequence[str]) -> typer.Typer:
    """The verb that `arguments` begin with, or every verb: for the help, and for the neighbours of a wrong name."""
    program = typer.Typer(
        name="inference-pio",
        help="Run open language models on this machine.",
        add_completion=False,
        context_settings={"help_option_names": ["--help", "-h"]},
    )
    program.callback()(_common)
    for name in [arguments[0]] if arguments and arguments[0] in _VERBS else _VERBS:
        module, _, attribute = _VERBS[name].partition(":")
        verb = getattr(import_module(module), attribute)
        if isinstance(verb, typer.Typer):
            program.add_typer(verb, name=name)
        else:
            program.command(name)(flat(verb))
    return program


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
