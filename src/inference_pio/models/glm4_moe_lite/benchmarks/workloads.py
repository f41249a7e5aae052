"""What glm4_moe_lite is measured on: 31 billion weights, 62 GB in bfloat16. `--model` names another one."""

from __future__ import annotations

from inference_pio.benchmarks.usual import usual_techniques
from inference_pio.benchmarks.workload import Suite, Technique, Workload
from inference_pio.models.glm4_moe_lite import MANIFEST
from inference_pio.models.glm4_moe_lite.specific_optimizations.switch_point import never_expanded

PREFILL = Workload(prompt_len=512, output_len=1)
DECODE = Workload(prompt_len=64, output_len=8, concurrency=4)

SUITE = Suite(
    plugin=MANIFEST.name,
    model="zai-org/GLM-4.7-Flash",
    batch=Workload(prompt_len=256, output_len=64, concurrency=8),
    prefill=Workload(prompt_len=512, output_len=1),
    decode=Workload(prompt_len=16, output_len=32),
    techniques=usual_techniques(
        PREFILL,
        DECODE,
        Technique("expanded prefill", PREFILL, without=never_expanded),
    ),
)
