"""What glm4_moe_lite is measured on: 31 billion weights, 62 GB in bfloat16. `--model` names another one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from torch import nn

from inference_pio import ops
from inference_pio.benchmarks.every_row import every_row
from inference_pio.benchmarks.workload import Suite, Technique, Workload
from inference_pio.models.glm4_moe_lite import MANIFEST
from inference_pio.models.glm4_moe_lite.attention.multi_query_attention import Attention
from inference_pio.ops import native


def _in_torch(model: nn.Module) -> AbstractContextManager[None]:  # noqa: ARG001
    return ops.use("reference")


@contextmanager
def never_expanded(model: nn.Module) -> Iterator[None]:
    """Prefill meets the latents as decoding does."""
    layers = [module for module in model.modules() if isinstance(module, Attention)]
    before = [layer.prefill for layer in layers]
    for layer in layers:
        layer.prefill = layer.decode
    try:
        yield
    finally:
        for layer, prefill in zip(layers, before, strict=True):
            layer.prefill = prefill


PREFILL = Workload(prompt_len=512, output_len=1)
DECODE = Workload(prompt_len=64, output_len=8, concurrency=4)

SUITE = Suite(
    plugin=MANIFEST.name,
    model="zai-org/GLM-4.7-Flash",
    batch=Workload(prompt_len=256, output_len=64, concurrency=8),
    prefill=Workload(prompt_len=512, output_len=1),
    decode=Workload(prompt_len=16, output_len=32),
    techniques=(
        Technique("fused layer norm", DECODE, flag="use_fused_layer_norm"),
        Technique("FlashAttention 2", PREFILL, flag="use_flash_attention_2"),
        Technique("paged attention", DECODE, flag="use_paged_attention"),
        Technique(
            "prefix caching", Workload(256, 4, concurrency=4, shared_len=224), flag="use_prefix_caching"
        ),
        Technique("expanded prefill", PREFILL, without=never_expanded),
        Technique("needed rows", PREFILL, without=every_row),
        Technique("native operations, prefill", PREFILL, without=_in_torch, unavailable=native.MISSING or ""),
        Technique("native operations, decode", DECODE, without=_in_torch, unavailable=native.MISSING or ""),
    ),
)
