"""Readers of bytes that strangers write: what was found once. `tests/promises/test_soak.py` looks for more."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import pytest

from fuzz.targets import TARGETS

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
MOST_BYTES = 300_000
MOST_SECONDS = 5.0


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
