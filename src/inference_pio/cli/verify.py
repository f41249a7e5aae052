"""`inference-pio verify`: whether a plugin, built-in or installed, keeps the contract."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from inference_pio.cli.held import within
from inference_pio.cli.limit_options import LimitOptions
from inference_pio.cli.options import AsJson
from inference_pio.cli.session import importing
from inference_pio.cli.tables import print_json
from inference_pio.cli.text import one_line
from inference_pio.errors import PluginError, UnavailableError, UsageError
from inference_pio.loader.strict_json import strict_object
from inference_pio.plugin.registry import Registered, default_registry

if TYPE_CHECKING:
    from inference_pio.conformance.checks import Check
    from inference_pio.conformance.verdict import Outcome, Verdict

_INDENT = " " * 21


def verify(
    plugin: Annotated[str, typer.Argument(metavar="PLUGIN", help="A name of `inference-pio plugins`.")],
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="C5", help="Run this check alone; may be given several times."),
    ] = None,
    configs: Annotated[
        Path | None,
        typer.Option(
            "--configs", metavar="FOLDER", help="Files *.json, each a config.json of some model, for C2."
        ),
    ] = None,
    as_json: AsJson = False,
    *,
    limits: LimitOptions,
) -> None:
    """Run the contract's checks over a plugin, built-in or of a package.

    The plugin is imported into this process: it is for its author, not for a stranger's. Exit code 6 where a check
    fails, 4 where something to check with is not installed.
    """
    registered = default_registry().get(plugin)
    within(limits, "verify")
    collected = {} if configs is None else _collected(configs)
    _quiet_references()
    with importing():
        from inference_pio.conformance import verdict
        from inference_pio.conformance.checks import CHECKS
        from inference_pio.conformance.subject import Subject
    checks = _asked(CHECKS, only)
    started = perf_counter()
    with TemporaryDirectory(prefix="inference-pio-verify-") as workdir:
        subject = Subject.of(plugin, Path(workdir), collected)
        found, out = [], sys.stdout
        with redirect_stdout(
            sys.stderr
        ):  # whatever a plugin or its reference prints: stdout is the verdict's
            for outcome in verdict.outcomes(subject, checks):
                found.append(outcome)
                if not as_json:
                    _show(outcome, out)
    _finish(registered, found, perf_counter() - started, as_json)


def _finish(registered: Registered, found: Sequence[Outcome], seconds: float, as_json: bool) -> None:
    counts = Counter(outcome.verdict for outcome in found)
    kept = not counts["failed"] and not counts["not run"]
    if as_json:
        print_json(
            {
                "plugin": registered.manifest.name,
                "origin": registered.origin,
                "kept": kept,
                "counts": dict(counts),
                "seconds": seconds,
                "checks": [asdict(outcome) for outcome in found],
            }
        )
    else:
        print(f"\n{_summary(registered, counts, len(found))} {seconds:.0f} s.")
    if counts["failed"]:
        raise typer.Exit(PluginError.exit_code)
    if counts["not run"]:
        raise typer.Exit(UnavailableError.exit_code)


def _asked(checks: Sequence[Check], only: Sequence[str] | None) -> list[Check]:
    """The checks of the numbers or names given; all where none was.

    Raises:
        UsageError: there is no such number.
    """
    wanted = {number.upper().partition("-")[0] for number in only or ()}
    numbers = dict.fromkeys(check.number for check in checks)
    if unknown := sorted(wanted - set(numbers)):
        raise UsageError(f"no check is called {', '.join(unknown)}; there are {', '.join(numbers)}")
    return [check for check in checks if not wanted or check.number in wanted]


def _collected(folder: Path) -> dict[str, dict[str, Any]]:
    """config.json files by name.

    Raises:
        UsageError: there is none.
        ModelFileError: one is not a JSON object.
    """
    paths = sorted(folder.glob("*.json"))
    if not paths:
        raise UsageError(f"{folder} holds no *.json")
    return {path.name: strict_object(path.read_bytes(), path, "") for path in paths}


def _quiet_references() -> None:
    """Progress bars and advice of the libraries that references come from would stand between the verdicts."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")


def _show(outcome: Outcome, out: TextIO) -> None:
    print(f"{outcome.number:<5}{outcome.verdict:<16}{outcome.question}", file=out, flush=True)
    if outcome.why:
        print(f"{_INDENT}{one_line(outcome.why)}", file=out, flush=True)


def _summary(registered: Registered, counts: Counter[Verdict], total: int) -> str:
    name = f"{registered.manifest.name} ({registered.origin})"
    told = ", ".join(
        f"{counts[word]} {word}" for word in ("failed", "not run", "not applicable") if counts[word]
    )
    passed = f"{counts['passed']} of {total} checks passed" + (f", {told}" if told else "")
    if counts["failed"]:
        return f"{name} does not keep the contract: {passed}."
    if counts["not run"]:
        return f"{name} is not fully checked: {passed}."
    return f"{name} keeps the contract: {passed}."
