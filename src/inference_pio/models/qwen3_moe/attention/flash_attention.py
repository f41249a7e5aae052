"""Prefill in tiles (FlashAttention 2, Dao 2023): no row of scores is ever written to memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from inference_pio import ops
from inference_pio.models.qwen3_moe.config import Qwen3MoeConfig
from inference_pio.plugin.facts import TechniqueFact


def prefill_attention(config: Qwen3MoeConfig) -> Callable[..., Tensor]:
    """What attends where a sequence has several new tokens."""
    return ops.paged_attention if config.use_flash_attention_2 else ops.reference.paged_attention


def technique(config: Qwen3MoeConfig) -> TechniqueFact:
    if not config.use_flash_attention_2:
        return _fact("dormant", "use_flash_attention_2 is off")
    return _fact(
        "active", "prefill in every layer; queries and keys are normalised before it, at no cost to it"
    )


def _fact(status: Literal["active", "dormant"], reason: str) -> TechniqueFact:
    name = "FlashAttention 2 (tiled online softmax)"
    return TechniqueFact(name, "attention", status, exact=True, reason=reason)
