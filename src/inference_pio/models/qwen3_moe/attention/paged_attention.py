"""Decode: the new token of each sequence reads the cache's blocks in place (PagedAttention, Kwon et al. 2023)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from inference_pio import ops
from inference_pio.models.qwen3_moe.config import Qwen3MoeConfig
from inference_pio.plugin.facts import TechniqueFact


def decode_attention(config: Qwen3MoeConfig) -> Callable[..., Tensor]:
    """What attends where every sequence has one new token."""
    return ops.paged_attention if config.use_paged_attention else ops.reference.paged_attention


def technique(config: Qwen3MoeConfig) -> TechniqueFact:
    on = config.use_paged_attention
    return TechniqueFact(
        "paged attention",
        "attention",
        "active" if on else "dormant",
        exact=True,
        reason="decode reads blocks in place" if on else "use_paged_attention is off",
    )
