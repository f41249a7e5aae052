"""Decode: the new token of each sequence reads the cache's blocks in place (PagedAttention, Kwon et al. 2023)."""

from __future__ import annotations

from inference_pio import ops
from inference_pio.models.qwen3_moe.config import Qwen3MoeConfig
from inference_pio.plugin.paged import Attend


def decode_attention(config: Qwen3MoeConfig) -> Attend:
    """What attends where every sequence has one new token."""
    return ops.paged_attention if config.use_paged_attention else ops.reference.paged_attention
