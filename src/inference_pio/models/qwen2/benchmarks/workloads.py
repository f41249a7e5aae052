"""What qwen2 is measured on. The default model has 1.5 billion weights: less work than for a small one, so that every
benchmark ends within minutes on a laptop."""

from __future__ import annotations

from inference_pio.benchmarks.usual import usual_techniques
from inference_pio.benchmarks.workload import Suite, Workload
from inference_pio.models.qwen2 import MANIFEST

PREFILL = Workload(prompt_len=256, output_len=1)
DECODE = Workload(prompt_len=64, output_len=8, concurrency=4)

SUITE = Suite(
    plugin=MANIFEST.name,
    model="qwen2.5-coder-1.5b-instruct",
    batch=Workload(prompt_len=256, output_len=64, concurrency=8),
    prefill=Workload(prompt_len=512, output_len=1),
    decode=Workload(prompt_len=16, output_len=32),
    techniques=usual_techniques(PREFILL, DECODE),
)
