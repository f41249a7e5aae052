"""A verb that loads models into its own process, within limits: the same command line in a child that is held to them.

The child confines itself before it imports anything large; streams are this process's. What it writes it writes where
the verb does: of the trust levels it has the highest only.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import msgspec
import typer

from inference_pio.cli.limit_options import LimitOptions
from inference_pio.cli.text import one_line
from inference_pio.cli.typed import typed
from inference_pio.errors import ResourceError, UsageError
from inference_pio.security import ResourceLimits, SecurityLevel
from inference_pio.security.confine import Confinement, confine
from inference_pio.security.held import held_to, limits_here

if TYPE_CHECKING:
    from inference_pio.worker.booting import Cell

_RUN = "import sys; sys.path[:0] = {paths!r}; from inference_pio.cli.held import main; main({descriptor})"
_LEVEL = SecurityLevel.MAXIMUM_TRUST
_LEAST_GB = 0.3


class Held(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the child is told first."""

    confinement: Confinement
    limits: ResourceLimits
    parent: int


def within(options: LimitOptions, verb: str) -> None:
    """Where limits were given, run the command line that was typed in a child that is held to them, and no more here.

    Raises:
        Exit: the child has ended, with its code.
        UsageError: a level that such a verb has not.
        ResourceError: the child was ended for a limit, or nothing holds one here and enforcement is strict.
    """
    refuse_levels(options, verb)
    limits = options.limits()
    if limits is None or limits_here() is not None:
        return
    if limits.memory_gb < _LEAST_GB:
        raise ResourceError(
            f"{verb}: memory_gb {limits.memory_gb:g}: Python and torch alone take {_LEAST_GB:g} GB: raise it"
        )
    from inference_pio.loader.store import ModelStore
    from inference_pio.worker.booting import Cell

    cell = Cell.of(_LEVEL, limits, None, ModelStore())
    _tell(options, cell, verb)
    raise typer.Exit(_ended(cell, limits, verb))


def refuse_levels(options: LimitOptions, verb: str) -> None:
    """
    Raises:
        UsageError: as `within`.
    """
    if options.security_level not in (None, _LEVEL.value):
        raise UsageError(
            f"--security-level {options.security_level}: {verb} runs the model beside its own work, which reads and "
            "writes files: it has maximum_trust and every limit; run and chat have the other levels"
        )


def main(descriptor: int) -> None:
    """The child."""
    with open(descriptor, "rb") as said:
        told = msgspec.json.decode(said.read(), type=Held)
    confine(told.confinement, told.parent)
    from inference_pio.cli.main import main as command_line

    with held_to(told.limits):
        command_line()


def _tell(options: LimitOptions, cell: Cell, verb: str) -> None:
    """What is not held here of the limits that were given."""
    from inference_pio.security.enforcement import is_strict, require
    from inference_pio.security.report import EnforcementReport

    entries = tuple(entry for entry in cell.report().entries if entry.limit in options.stated())
    report = EnforcementReport(_LEVEL, entries)
    if is_strict(_LEVEL, options.enforcement):
        require(report, verb)
    for entry in report.missing():
        print(one_line(f"(not held here: {entry.limit} = {entry.value:g}: {entry.how})"), file=sys.stderr)


def _ended(cell: Cell, limits: ResourceLimits, verb: str) -> int:
    """The child's exit code."""
    from inference_pio.children.beginning import import_paths
    from inference_pio.worker.booting import confinement_of_a_verb, environment_of_a_verb
    from inference_pio.worker.death import Death

    reading, writing = os.pipe()
    sys.stdout.flush()
    verdict: list[str] = []
    with _left_to_the_child():
        child = subprocess.Popen(
            [sys.executable, "-c", _RUN.format(paths=import_paths(), descriptor=reading), *typed.get()],
            pass_fds=(reading,),
            env={**os.environ, **environment_of_a_verb(limits)},
        )
        os.close(reading)

        def kill(reason: str) -> None:
            verdict.append(reason)
            _kill_all(child.pid)

        holding = cell.hold(child.pid, kill)
        holding.tighten(cell.most_bytes)
        try:
            with suppress(BrokenPipeError), open(writing, "wb") as line:
                line.write(msgspec.json.encode(Held(confinement_of_a_verb(limits), limits, os.getpid())))
            while child.poll() is None:
                holding.watch.look()
                time.sleep(holding.watch.interval)
        finally:
            if child.poll() is None:
                _kill_all(child.pid)
                child.wait()
            death = holding.explained(Death(child.returncode, "; ".join(verdict[:1])))
            holding.close()
    if death.verdict:
        raise ResourceError(f"{verb}: {death.verdict}")
    if child.returncode < 0:
        raise ResourceError(f"{verb}: {death.cause}")
    return child.returncode


@contextmanager
def _left_to_the_child() -> Iterator[None]:
    """Ctrl-C reaches both; the child says what becomes of it."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _kill_all(pid: int) -> None:
    """A child and what it started."""
    import psutil

    with suppress(psutil.NoSuchProcess):
        child = psutil.Process(pid)
        for each in [*child.children(recursive=True), child]:
            with suppress(psutil.NoSuchProcess):
                each.kill()
