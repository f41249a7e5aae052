"""The suite when directories of built-in plugins are taken away: a copy of the checkout without them, and pytest there.

    python tests/support/without_plugin.py qwen2,qwen3 tests/plugin -q

What belongs to a plugin goes with it: its directory, and the tests of its benchmarks. Everything behind the names is
for pytest; without anything the whole suite runs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
_COPIED = ("src", "tests", "benchmarks", "docs", "examples")
_FILES = (
    *("conftest.py", "pyproject.toml", "setup.py", "constraints.txt", "Makefile", "LICENSE"),
    *("README.md", "CHANGELOG.md", "CONTRIBUTING.md"),
)


def copy_without(plugins: Sequence[str], target: Path) -> Path:
    """The checkout at `target`, without the plugins."""
    unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "results")
    for name in _COPIED:
        shutil.copytree(ROOT / name, target / name, ignore=unwanted)
    for name in _FILES:
        shutil.copy2(ROOT / name, target / name)
    for plugin in plugins:
        shutil.rmtree(target / "src" / "inference_pio" / "models" / plugin)
    for path in (target / "tests" / "benchmarks").glob("test_*_benchmarks.py"):
        if any(f"inference_pio.models.{plugin}." in path.read_text() for plugin in plugins):
            path.unlink()
    return target


def run_pytest(
    checkout: Path, arguments: Sequence[str], timeout: float | None = None
) -> subprocess.CompletedProcess[str]:
    """In a process that knows this checkout alone."""
    paths = {"PYTHONPATH": str(checkout / "src")}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        cwd=checkout,
        env={**os.environ, **paths},
        text=True,
        capture_output=True,
        check=False,
        timeout=timeout,
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        done = run_pytest(copy_without(sys.argv[1].split(","), Path(folder) / "checkout"), sys.argv[2:])
    print(done.stdout, done.stderr, sep="\n")
    sys.exit(done.returncode)
