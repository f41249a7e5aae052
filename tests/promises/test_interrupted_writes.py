"""What is written is there as a whole or not at all, wherever the process dies or the disk is full."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

LEAST = {"prefixes": 15, "receipts": 7, "packages": 40}


@pytest.mark.slow
def test_every_place_of_an_interruption(tmp_path: Path) -> None:
    """Of caches, of single files, and of plugin packages that are installed and removed (`interrupted.py`)."""
    root = Path(__file__).parents[2]
    paths = os.pathsep.join([str(root / "src"), str(root / "tests")])
    ran = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("interrupted.py")), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert ran.returncode == 0, ran.stderr
    tries = json.loads(ran.stdout)
    expected = {f"{what} {how}": least for what, least in LEAST.items() for how in ("dies", "full disk")}
    assert tries.keys() == expected.keys()
    assert all(count >= expected[name] for name, count in tries.items()), tries
