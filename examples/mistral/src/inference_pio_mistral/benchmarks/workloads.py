"""What mistral is measured on. The default model has 7 billion weights: little work is enough to see what it costs."""

from __future__ import annotations

from contextlib import AbstractContextManager

from torch import nn

from inference_pio import ops
from inference_pio.benchmarks.every_row import every_row
from inference_pio.benchmarks.workload import Suite, Technique, Workload
from inference_pio.ops import native
from inference_pio_mistral import MANIFEST


def _in_torch(model: nn.Module) -> AbstractContextManager[None]:  # noqa: ARG001
    return ops.use("reference")


PREFILL = Workload(prompt_len=128, output_len=1)
DECODE = Workload(prompt_len=64, output_len=8, concurrency=4)

SUITE = Suite(
    plugin=MANIFEST.name,
    model="mistralai/Mistral-7B-Instruct-v0.3",
    batch=Workload(prompt_len=256, output_len=32, concurrency=4),
    prefill=Workload(prompt_len=256, output_len=1),
    decode=Workload(prompt_len=16, output_len=16),
    techniques=(
        Technique("needed rows", PREFILL, without=every_row),
        Technique("native operations, prefill", PREFILL, without=_in_torch, unavailable=native.MISSING or ""),
        Technique("native operations, decode", DECODE, without=_in_torch, unavailable=native.MISSING or ""),
    ),
)
