"""Qwen3-VL, techniques: what each is worth, measured with it and without it in turns."""

from __future__ import annotations

import sys
from functools import partial

from inference_pio.benchmarks import impact
from inference_pio.benchmarks.command import main
from inference_pio.models.qwen3_vl.benchmarks.workloads import SUITE

measure = partial(impact.measure, SUITE)

if __name__ == "__main__":
    sys.exit(main(measure, __doc__))
