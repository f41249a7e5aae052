"""A plugin package's wheel from an index, by pip, which runs nothing of it."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from inference_pio.errors import DownloadError, UsageError

_PINNED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,127})==([A-Za-z0-9][A-Za-z0-9.!+_-]{0,63})")


@contextmanager
def fetched(wanted: str, sha256: str) -> Iterator[Path]:
    """A wheel for as long as the block lasts: `wanted` itself where it is a file, else fetched.

    Args:
        wanted: a path, or NAME==VERSION.
        sha256: of the wheel, in hexadecimal: pip gives nothing else.

    Raises:
        UsageError: it is neither.
        DownloadError: the index has no such wheel, or cannot be reached.
    """
    if wanted.endswith(".whl") or Path(wanted).exists():
        if not Path(wanted).is_file():
            raise UsageError(f"no such file: {wanted!r:.200}")
        yield Path(wanted)
        return
    pinned = _PINNED.fullmatch(wanted)
    if pinned is None:
        raise UsageError(f"a package is named as NAME==VERSION, or by a .whl file, got {wanted!r:.200}")
    if importlib.util.find_spec("pip") is None:
        raise DownloadError("this environment has no pip (python -m ensurepip adds it)")
    with tempfile.TemporaryDirectory() as work:
        needed = Path(work) / "needed.txt"
        needed.write_text(f"{wanted} --hash=sha256:{sha256}\n")
        ran = subprocess.run(
            [
                *(sys.executable, "-P", "-m", "pip", "download", "--requirement", str(needed)),
                *("--require-hashes", "--only-binary", ":all:", "--no-deps", "--dest", work),
                *("--no-cache-dir", "--disable-pip-version-check", "--no-input", "--progress-bar", "off"),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd=work,
            check=False,
        )
        found = sorted(Path(work).glob("*.whl"))
        if ran.returncode or len(found) != 1:
            raise DownloadError(f"pip could not fetch {wanted}: {_complaint(ran.stdout + ran.stderr)}")
        yield found[0]


def _complaint(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()] or ["it said nothing"]
    return next((line for line in lines if line.startswith("ERROR")), lines[-1])[:300]
