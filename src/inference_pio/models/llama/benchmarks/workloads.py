"""What llama is measured on. The default model is small, so that every benchmark ends within minutes on a laptop."""

from __future__ import annotations

from inference_pio.benchmarks.usual import usual_techniques
from inference_pio.benchmarks.workload import Suite, Workload
from inference_pio.models.llama import MANIFEST

PREFILL = Workload(prompt_len=512, output_len=1)
DECODE = Workload(prompt_len=64, output_len=16, concurrency=8)

SUITE = Suite(
    plugin=MANIFEST.name,
    model="smollm2-135m-instruct",
    batch=Workload(prompt_len=256, output_len=128, concurrency=32),
    prefill=Workload(prompt_len=1024, output_len=1),
    decode=Workload(prompt_len=16, output_len=64),
    techniques=usual_techniques(PREFILL, DECODE),
)
