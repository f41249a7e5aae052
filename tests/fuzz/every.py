"""Run as a program: fuzzes every target for so many seconds, two at a time, and prints what is found.

python tests/fuzz/every.py 30
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

HERE = Path(__file__).parent
AT_ONCE = 2
TARGETS = sorted(folder.name for folder in (HERE / "corpus").iterdir())


def fuzz(folder: Path, seconds: int, target: str) -> str:
    """What was found, and the input; empty: nothing."""
    new = folder / target
    new.mkdir()
    options = [
        f"-max_total_time={seconds}",
        f"-artifact_prefix={folder}/",
        str(new),
        str(HERE / "corpus" / target),
    ]
    done = subprocess.run(
        [sys.executable, str(HERE / "run.py"), target, *options],
        capture_output=True,
        timeout=4 * seconds + 60,
        env={**os.environ, "TMPDIR": str(folder)},
        check=False,
    )
    said = done.stderr.decode(errors="replace")
    wrong = done.returncode or "DONE" not in said
    return f"{target}:\n{said[-4000:]}(exit code {done.returncode})" if wrong else ""


def main(seconds: int) -> int:
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(AT_ONCE) as pool:
        found = [words for words in pool.map(partial(fuzz, Path(folder), seconds), TARGETS) if words]
    print("\n\n".join(found) or f"nothing found in {seconds} s of {', '.join(TARGETS)}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
