"""Qwen3-VL, accuracy: perplexity of the fast number format and its agreement with float32 on a real text."""

from __future__ import annotations

import sys
from functools import partial

from inference_pio.benchmarks import accuracy
from inference_pio.benchmarks.command import main
from inference_pio.models.qwen3_vl.benchmarks.workloads import SUITE

measure = partial(accuracy.measure, SUITE)

if __name__ == "__main__":
    sys.exit(main(measure, __doc__))
