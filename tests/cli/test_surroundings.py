"""Variables of the environment that are this program's."""

from __future__ import annotations

import re
from pathlib import Path

import inference_pio
from inference_pio.cli.surroundings import strangers

ROOTS = (Path(inference_pio.__file__).parent, Path(__file__).parents[2] / "benchmarks")
# Not of those that are made of a prefix and a name somewhere.
NAMES = re.compile(r"INFERENCE_PIO_[A-Z]+(?:_[A-Z]+)*")


def test_all_that_are_read_are_known() -> None:
    texts = (file.read_text() for root in ROOTS for kind in ("*.py", "*.cpp") for file in root.rglob(kind))
    read = {name for text in texts for name in NAMES.findall(text)}
    assert {"INFERENCE_PIO_HOME", "INFERENCE_PIO_WORKER_USER", "INFERENCE_PIO_ISA"} <= read
    assert list(strangers(read)) == []
