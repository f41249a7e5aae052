"""What qwen3_moe is measured on: little work, since its default model has 30 billion weights, 3 of them per token."""

from __future__ import annotations

from contextlib import AbstractContextManager

from torch import nn

from inference_pio import ops
from inference_pio.benchmarks.every_row import every_row
from inference_pio.benchmarks.workload import Suite, Technique, Workload
from inference_pio.models.qwen3_moe import MANIFEST
from inference_pio.ops import native


def _by_reference(model: nn.Module) -> AbstractContextManager[None]:  # noqa: ARG001
    return ops.use("reference")


_PROMPT = Workload(prompt_len=256, output_len=1)
_ANSWERS = Workload(prompt_len=32, output_len=8, concurrency=2)
_NO_KERNELS = native.MISSING or ""

SUITE = Suite(
    plugin=MANIFEST.name,
    model="Qwen/Qwen3-Coder-30B-A3B-Instruct",
    batch=Workload(prompt_len=256, output_len=64, concurrency=8),
    prefill=Workload(prompt_len=512, output_len=1),
    decode=Workload(prompt_len=16, output_len=32),
    techniques=(
        Technique("needed rows", _PROMPT, without=every_row),
        Technique("native operations", _ANSWERS, without=_by_reference, unavailable=_NO_KERNELS),
    ),
)
