"""Qwen3-VL, throughput: tokens per second of 8 sequences of 256 + 64 tokens at once."""

from __future__ import annotations

import sys
from functools import partial

from inference_pio.benchmarks import throughput
from inference_pio.benchmarks.command import main
from inference_pio.models.qwen3_vl.benchmarks.workloads import SUITE

measure = partial(throughput.measure, SUITE)

if __name__ == "__main__":
    sys.exit(main(measure, __doc__))
