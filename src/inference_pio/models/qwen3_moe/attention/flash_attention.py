"""Prefill in tiles (FlashAttention 2, Dao 2023): no row of scores is ever written to memory."""

from __future__ import annotations

from inference_pio import ops
from inference_pio.models.qwen3_moe.config import Qwen3MoeConfig
from inference_pio.plugin.paged import Attend


def prefill_attention(config: Qwen3MoeConfig) -> Attend:
    """What attends where a sequence has several new tokens."""
    return ops.paged_attention if config.use_flash_attention_2 else ops.reference.paged_attention
