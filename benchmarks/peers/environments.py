"""A virtual environment for each peer, with pinned packages: built once, kept, built again when its recipe changes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from inference_pio.errors import UnavailableError
from inference_pio.loader.store import default_home

_FINISHED = "finished.json"
_WORDS = 3


class PeerUnavailable(UnavailableError):
    """A peer cannot be set up on this machine. It is skipped with this reason."""


@dataclass(frozen=True)
class Recipe:
    """What an environment consists of.

    packages   what pip installs, pinned
    arguments  further ones of `pip install`
    variables  the environment of the build
    unwanted   packages that come along and keep the peer from starting; it does without them
    minutes    how long it takes where something is compiled; 0 where nothing is
    """

    packages: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    variables: dict[str, str] = field(default_factory=dict)
    unwanted: tuple[str, ...] = ()
    minutes: int = 0


def default_folder() -> Path:
    """`INFERENCE_PIO_PEERS`, else `peers` in the project's cache folder."""
    if chosen := os.environ.get("INFERENCE_PIO_PEERS"):
        return Path(chosen).expanduser()
    return default_home() / "peers"


def interpreter(name: str, recipe: Recipe, folder: Path, say: Callable[[str], None]) -> Path:
    """The Python of the peer's environment, which is built where it is not there as the recipe says.

    Raises:
        PeerUnavailable: a package cannot be had, or does not build; the log says all of it.
    """
    home = folder / name
    python = home / "bin" / "python"
    finished = home / _FINISHED
    wanted = json.dumps(asdict(recipe))
    if finished.is_file() and finished.read_text() == wanted:
        return python
    log = folder / "logs" / f"{name}-setup.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    compiled = f", compiles for about {recipe.minutes} minutes" if recipe.minutes else ""
    say(f"{name}: installing {', '.join(recipe.packages[:_WORDS])} into {home}{compiled} (log: {log})")
    start = time.monotonic()
    shutil.rmtree(home, ignore_errors=True)
    with log.open("wb") as output:
        for command in _commands(home, python, recipe):
            done = subprocess.run(
                command, env=os.environ | recipe.variables, stdout=output, stderr=output, check=False
            )
            if done.returncode:
                raise PeerUnavailable(f"{name} cannot be set up: {_cause(log)} (all of it: {log})")
    finished.write_text(wanted)
    say(f"{name}: ready after {time.monotonic() - start:.0f} s")
    return python


def _commands(home: Path, python: Path, recipe: Recipe) -> list[list[str]]:
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--no-input"]
    commands = [
        [sys.executable, "-m", "venv", str(home)],
        [*pip, "install", *recipe.arguments, *recipe.packages],
    ]
    if recipe.unwanted:
        commands.append([*pip, "uninstall", "--yes", *recipe.unwanted])
    return commands


def _cause(log: Path) -> str:
    """The first error that pip reports, else the last line it wrote."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error")]
    return (errors or lines[-1:] or ["no word of why"])[0][:200]
