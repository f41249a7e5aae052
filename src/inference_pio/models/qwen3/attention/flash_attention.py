"""Prefill: many tokens of a sequence attend at once (FlashAttention 2, Dao 2023: tiles with an online softmax)."""

from __future__ import annotations

from inference_pio import ops
from inference_pio.models.qwen3.config import Qwen3Config
from inference_pio.plugin.paged import Attend


def prefill_attention(config: Qwen3Config) -> Attend:
    """Tiled attention over the cache's blocks, or the reference that materialises the scores."""
    return ops.paged_attention if config.use_flash_attention_2 else ops.reference.paged_attention
