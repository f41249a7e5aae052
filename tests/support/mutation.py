"""Guards taken out one at a time: for each of `tests/promises/guards.toml` a test has to fail.

    python tests/support/mutation.py                  all of them
    python tests/support/mutation.py security poison  those whose file or name has one of these words

A copy of the package and of the tests is made once; each guard is replaced in it, its test is run there and has to
fail in an assertion or an error of its own, and the guard is put back. Nothing of this checkout is touched.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FILE = ROOT / "tests/promises/guards.toml"
_FOLDERS = ("src", "tests", "benchmarks")
_FILES = ("conftest.py", "pyproject.toml")
_FAILED = 1  # of pytest: tests were run, and some failed
_PATIENCE = 180.0


@dataclass(frozen=True)
class Guard:
    """
    name   what it holds off
    file   below src/inference_pio
    text   the source that is it, which the file has exactly once
    then   what stands there without it
    test   what has to fail then, as pytest names it
    """

    name: str
    file: str
    text: str
    then: str
    test: str


def guards() -> list[Guard]:
    return [Guard(**each) for each in tomllib.loads(_FILE.read_text())["guard"]]


@contextmanager
def copied() -> Iterator[Path]:
    """A checkout to spoil."""
    with tempfile.TemporaryDirectory() as folder:
        for name in _FOLDERS:
            shutil.copytree(
                ROOT / name, Path(folder) / name, ignore=shutil.ignore_patterns("__pycache__", "results")
            )
        for name in _FILES:
            shutil.copy2(ROOT / name, folder)
        yield Path(folder)


def survives(guard: Guard, checkout: Path) -> str:
    """Why nothing noticed that it was gone; empty where its test failed."""
    file = checkout / "src/inference_pio" / guard.file
    source = file.read_text()
    if source.count(guard.text) != 1:
        return f"{guard.file} has its text {source.count(guard.text)} times"
    file.write_text(source.replace(guard.text, guard.then))
    try:
        compile(file.read_text(), str(file), "exec")
        code, said = _run([guard.test], checkout)
    finally:
        file.write_text(source)
    if code == _FAILED:
        return ""
    return "its test passed" if code == 0 else f"its test did not run ({code}): {said[-300:]}"


def _run(tests: Sequence[str], checkout: Path) -> tuple[int, str]:
    ran = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--no-header", *tests],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout / "src"), "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = ran.communicate(timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        return _FAILED, "it hung"
    finally:
        with suppress(ProcessLookupError):  # what it started and did not end
            os.killpg(ran.pid, signal.SIGKILL)
        ran.wait()
    return ran.returncode, said


def main(words: Sequence[str]) -> int:
    chosen = [g for g in guards() if not words or any(word in f"{g.file} {g.name}" for word in words)]
    survivors = 0
    with copied() as checkout:
        for guard in chosen:
            began = time.monotonic()
            why = survives(guard, checkout)
            survivors += bool(why)
            verdict = f"SURVIVES: {why}" if why else "killed"
            print(f"{guard.file}: {guard.name}: {verdict} ({time.monotonic() - began:.1f} s)", flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} killed")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
