"""What every decoder has beside the techniques of `inference_pio.optimizations`, and the work on which it shows."""

from __future__ import annotations

from contextlib import AbstractContextManager

from torch import nn

from inference_pio import ops
from inference_pio.benchmarks.every_row import every_row
from inference_pio.benchmarks.workload import Technique, Workload
from inference_pio.ops import native


def in_torch(model: nn.Module) -> AbstractContextManager[None]:  # noqa: ARG001
    """A loaded model without the native operations."""
    return ops.use("reference")


def usual_techniques(prefill: Workload, decode: Workload, *own: Technique) -> tuple[Technique, ...]:
    """`own` are those of one architecture; they come in front of what takes whole operations away."""
    missing = native.MISSING or ""
    return (
        *own,
        Technique("needed rows", prefill, without=every_row),
        Technique("native operations, prefill", prefill, without=in_torch, unavailable=missing),
        Technique("native operations, decode", decode, without=in_torch, unavailable=missing),
    )
