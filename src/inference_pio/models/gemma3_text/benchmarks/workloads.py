"""What gemma3_text is measured on: a prompt three times as long as the default model's window is among it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from torch import nn

from inference_pio import ops
from inference_pio.benchmarks.every_row import every_row
from inference_pio.benchmarks.workload import Suite, Technique, Workload
from inference_pio.models.gemma3_text import MANIFEST
from inference_pio.models.gemma3_text.attention.multi_query_attention import Attention
from inference_pio.ops import native


def _in_torch(model: nn.Module) -> AbstractContextManager[None]:  # noqa: ARG001
    return ops.use("reference")


@contextmanager
def _without_windows(model: nn.Module) -> Iterator[None]:
    """Every layer attends to everything: other answers, and what they would cost."""
    layers = [module for module in model.modules() if isinstance(module, Attention)]
    windows = [layer.window for layer in layers]
    for layer in layers:
        layer.window = None
    try:
        yield
    finally:
        for layer, window in zip(layers, windows, strict=True):
            layer.window = window


PREFILL = Workload(prompt_len=256, output_len=1)
DECODE = Workload(prompt_len=64, output_len=16, concurrency=4)

SUITE = Suite(
    plugin=MANIFEST.name,
    model="gemma-3-270m",
    batch=Workload(prompt_len=256, output_len=64, concurrency=8),
    prefill=Workload(prompt_len=512, output_len=1),
    decode=Workload(prompt_len=16, output_len=64),
    techniques=(
        Technique("fused layer norm", DECODE, flag="use_fused_layer_norm"),
        Technique("FlashAttention 2", PREFILL, flag="use_flash_attention_2"),
        Technique("paged attention", DECODE, flag="use_paged_attention"),
        Technique("sliding windows", Workload(prompt_len=1536, output_len=1), without=_without_windows),
        Technique(
            "prefix caching", Workload(256, 4, concurrency=4, shared_len=224), flag="use_prefix_caching"
        ),
        Technique("needed rows", PREFILL, without=every_row),
        Technique("native operations, prefill", PREFILL, without=_in_torch, unavailable=native.MISSING or ""),
        Technique("native operations, decode", DECODE, without=_in_torch, unavailable=native.MISSING or ""),
    ),
)
