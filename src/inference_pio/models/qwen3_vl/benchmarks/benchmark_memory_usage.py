"""Qwen3-VL, memory: weights, KV cache and the peak of the process, against the plan made from the file's header."""

from __future__ import annotations

import sys
from functools import partial

from inference_pio.benchmarks import memory
from inference_pio.benchmarks.command import main
from inference_pio.models.qwen3_vl.benchmarks.workloads import SUITE

measure = partial(memory.measure, SUITE)

if __name__ == "__main__":
    sys.exit(main(measure, __doc__))
