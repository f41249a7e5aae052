"""What qwen3_next is measured on: little work, since a token goes through 3 billion of 80 billion weights.

No technique for prefixes: nothing is shared while states cannot be cut.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

from torch import nn

from inference_pio import ops
from inference_pio.benchmarks.every_row import every_row
from inference_pio.benchmarks.workload import Suite, Technique, Workload
from inference_pio.models.qwen3_next import MANIFEST
from inference_pio.ops import native

_PROMPT = Workload(prompt_len=192, output_len=1)
_ANSWERS = Workload(prompt_len=32, output_len=8, concurrency=4)
_NATIVE = native.MISSING or ""


def _without_native(model: nn.Module) -> AbstractContextManager[None]:  # noqa: ARG001
    return ops.use("reference")


SUITE = Suite(
    plugin=MANIFEST.name,
    model="Qwen/Qwen3-Coder-Next",
    batch=Workload(prompt_len=128, output_len=32, concurrency=8),
    # Whole chunks of the delta rule, and one that is not full.
    prefill=Workload(prompt_len=8 * ops.DELTA_CHUNK + 16, output_len=1),
    decode=Workload(prompt_len=16, output_len=32),
    techniques=(
        Technique("needed rows", _PROMPT, without=every_row),
        Technique("native operations, prefill", _PROMPT, without=_without_native, unavailable=_NATIVE),
        Technique("native operations, decode", _ANSWERS, without=_without_native, unavailable=_NATIVE),
    ),
)
