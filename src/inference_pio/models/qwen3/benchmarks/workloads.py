"""What qwen3 is measured on: the smallest one, in the bfloat16 in which it is published."""

from __future__ import annotations

from inference_pio.benchmarks.usual import usual_techniques
from inference_pio.benchmarks.workload import Suite, Workload
from inference_pio.models.qwen3 import MANIFEST

PREFILL = Workload(prompt_len=256, output_len=1)
DECODE = Workload(prompt_len=64, output_len=8, concurrency=4)

SUITE = Suite(
    plugin=MANIFEST.name,
    model="Qwen/Qwen3-0.6B",
    batch=Workload(prompt_len=256, output_len=64, concurrency=8),
    prefill=Workload(prompt_len=512, output_len=1),
    decode=Workload(prompt_len=16, output_len=32),
    techniques=usual_techniques(PREFILL, DECODE),
)
