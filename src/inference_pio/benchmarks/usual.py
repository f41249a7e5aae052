"""Techniques that every decoder over a paged cache has, each with the work on which it should show."""

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


def usual_techniques(
    prefill: Workload, decode: Workload, conversation: Workload, *own: Technique
) -> tuple[Technique, ...]:
    """`own` are those of one architecture; they come in front of what takes whole operations away."""
    missing = native.MISSING or ""
    return (
        Technique("fused layer norm", decode, flag="use_fused_layer_norm"),
        Technique("FlashAttention 2", prefill, flag="use_flash_attention_2"),
        Technique("paged attention", decode, flag="use_paged_attention"),
        Technique("prefix caching", conversation, flag="use_prefix_caching"),
        *own,
        Technique("needed rows", prefill, without=every_row),
        Technique("native operations, prefill", prefill, without=in_torch, unavailable=missing),
        Technique("native operations, decode", decode, without=in_torch, unavailable=missing),
    )
