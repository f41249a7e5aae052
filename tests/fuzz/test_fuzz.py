"""Readers of bytes that strangers write: what was found once, and what half a minute finds now."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest

from fuzz.targets import TARGETS

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
MOST_BYTES = 300_000
MOST_SECONDS = 5.0
SECONDS = 30


@pytest.mark.parametrize("target", TARGETS)
def test_every_input_that_is_kept(target: str) -> None:
    kept = sorted((CORPUS / target).iterdir())
    assert len(kept) > 10
    for file in kept:
        started = time.perf_counter()
        TARGETS[target](file.read_bytes())
        assert time.perf_counter() - started < MOST_SECONDS, file.name


def test_the_corpus_is_small_and_named_by_what_it_holds() -> None:
    files = [file for file in CORPUS.rglob("*") if file.is_file()]
    assert {folder.name for folder in CORPUS.iterdir()} == set(TARGETS)
    assert [file.name for file in files] == [hashlib.sha1(file.read_bytes()).hexdigest() for file in files]
    assert sum(file.stat().st_size for file in files) < MOST_BYTES


@pytest.mark.slow
@pytest.mark.skipif(
    find_spec("atheris") is None,
    reason="atheris is missing: there is one for Linux, x86-64, Python 3.11 to 3.13",
)
def test_nothing_is_found_in_half_a_minute(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(partial(_fuzz, tmp_path), TARGETS))
    found = [f"{target}:\n{words}" for target, words in zip(TARGETS, ended, strict=True) if words]
    assert not found, "\n\n".join(found)


def _fuzz(folder: Path, target: str) -> str:
    """What was found; empty: nothing."""
    new = folder / target
    new.mkdir()
    options = [f"-max_total_time={SECONDS}", f"-artifact_prefix={folder}/", str(new), str(CORPUS / target)]
    done = subprocess.run(
        [sys.executable, str(HERE / "run.py"), target, *options],
        capture_output=True,
        timeout=4 * SECONDS,
        env={**os.environ, "TMPDIR": str(folder)},
        check=False,
    )
    said = done.stderr.decode(errors="replace")
    return f"{said[-4000:]}(exit code {done.returncode})" if done.returncode or "DONE" not in said else ""
