"""Memory that is freed stays with the process while a model runs, and goes back when it is closed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CODE = """
import resource, sys, torch
from inference_pio.metrics.memory import process_bytes
from inference_pio.runtime.allocator import keep_freed_memory, release_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def step():  # as a prefill does: several buffers, all of them freed
    return [torch.ones(2_000_000) for _ in range(8)]

if sys.argv[1] == 'keep':
    keep_freed_memory()
for _ in range(20):  # until the heap has taken the shape that its buffers need
    step()
before, resident = faults(), process_bytes()
for _ in range(10):
    step()
taken = faults() - before
release_memory()
print(taken, resident - process_bytes())
"""


def run(mode: str) -> tuple[int, int]:
    # Start from thresholds that do not move, so that what keeps memory can only be our word.
    fixed = {"MALLOC_TRIM_THRESHOLD_": "131072", "MALLOC_MMAP_THRESHOLD_": "131072"}
    done = subprocess.run(
        [sys.executable, "-c", CODE, mode],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **fixed},
    )
    faults, released = map(int, done.stdout.split())
    return faults, released


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc is told what to keep")
def test_freed_memory_is_kept_and_can_be_given_back() -> None:
    faults, released = run("keep")
    faults_by_default, _ = run("default")
    assert faults < faults_by_default / 5
    assert released > 40_000_000
