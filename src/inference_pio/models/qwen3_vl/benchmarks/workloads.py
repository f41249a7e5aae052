"""What qwen3_vl is measured on: the text of the smallest one, in the bfloat16 in which it is published.

The shared harness measures token ids; what an image costs is the vision tower once, and then its tokens.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

from torch import nn

from inference_pio import ops
from inference_pio.benchmarks.every_row import every_row
from inference_pio.benchmarks.workload import Suite, Technique, Workload
from inference_pio.models.qwen3_vl import MANIFEST
from inference_pio.ops import native


def _in_torch(model: nn.Module) -> AbstractContextManager[None]:  # noqa: ARG001
    return ops.use("reference")


PREFILL = Workload(prompt_len=256, output_len=1)
DECODE = Workload(prompt_len=64, output_len=8, concurrency=4)

SUITE = Suite(
    plugin=MANIFEST.name,
    model="Qwen/Qwen3-VL-2B-Instruct",
    batch=Workload(prompt_len=256, output_len=64, concurrency=8),
    prefill=Workload(prompt_len=512, output_len=1),
    decode=Workload(prompt_len=16, output_len=32),
    techniques=(
        Technique("needed rows", PREFILL, without=every_row),
        Technique("native operations, prefill", PREFILL, without=_in_torch, unavailable=native.MISSING or ""),
        Technique("native operations, decode", DECODE, without=_in_torch, unavailable=native.MISSING or ""),
    ),
)
