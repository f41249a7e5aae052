"""Qwen3-VL, speed for one user: prefill of 512 tokens, time to the first token, decoding of one sequence."""

from __future__ import annotations

import sys
from functools import partial

from inference_pio.benchmarks import speed
from inference_pio.benchmarks.command import main
from inference_pio.models.qwen3_vl.benchmarks.workloads import SUITE

measure = partial(speed.measure, SUITE)

if __name__ == "__main__":
    sys.exit(main(measure, __doc__))
