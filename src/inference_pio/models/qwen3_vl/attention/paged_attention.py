"""Decode: one new token per sequence attends to its cache blocks where they lie (PagedAttention, Kwon et al. 2023)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from inference_pio import ops
from inference_pio.models.qwen3_vl.config import Qwen3VLConfig

Attend = Callable[..., Tensor]


def decode_attention(config: Qwen3VLConfig) -> Attend:
    """Attention that reads blocks in place, or the reference that gathers each sequence's blocks first."""
    return ops.paged_attention if config.use_paged_attention else ops.reference.paged_attention
