"""Prefill: many tokens of a sequence attend at once (FlashAttention 2, Dao 2023: tiles with an online softmax)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from inference_pio import ops
from inference_pio.models.qwen3_vl.config import Qwen3VLConfig

Attend = Callable[..., Tensor]


def prefill_attention(config: Qwen3VLConfig) -> Attend:
    """Tiled attention over the cache's blocks, or the reference that materialises the scores."""
    return ops.paged_attention if config.use_flash_attention_2 else ops.reference.paged_attention
