"""Decode: one new token per sequence attends to its cache blocks where they lie (PagedAttention, Kwon et al. 2023)."""

from __future__ import annotations

from inference_pio import ops
from inference_pio.models.qwen3.config import Qwen3Config
from inference_pio.plugin.paged import Attend


def decode_attention(config: Qwen3Config) -> Attend:
    """Attention that reads blocks in place, or the reference that gathers each sequence's blocks first."""
    return ops.paged_attention if config.use_paged_attention else ops.reference.paged_attention
