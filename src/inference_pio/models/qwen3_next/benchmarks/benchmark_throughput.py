"""Qwen3-Next, throughput: tokens per second of several sequences at once, each with a state of its own."""

from __future__ import annotations

import sys
from functools import partial

from inference_pio.benchmarks import throughput
from inference_pio.benchmarks.command import main
from inference_pio.models.qwen3_next.benchmarks.workloads import SUITE

measure = partial(throughput.measure, SUITE)

if __name__ == "__main__":
    sys.exit(main(measure, __doc__))
