"""Qwen3-VL, energy: joules per token, where the processor counts them and the system lets us read them."""

from __future__ import annotations

import sys
from functools import partial

from inference_pio.benchmarks import energy
from inference_pio.benchmarks.command import main
from inference_pio.models.qwen3_vl.benchmarks.workloads import SUITE

measure = partial(energy.measure, SUITE)

if __name__ == "__main__":
    sys.exit(main(measure, __doc__))
