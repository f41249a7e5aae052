"""Prefill of the attention layers: tiles with an online softmax (FlashAttention 2, Dao 2023).

They are one layer in four; the others compute prompts in chunks (`gated_delta_net.py`).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from inference_pio import ops
from inference_pio.models.qwen3_next.config import ATTENTION, Qwen3NextConfig
from inference_pio.plugin.facts import TechniqueFact


def prefill_attention(config: Qwen3NextConfig) -> Callable[..., Tensor]:
    """Tiles over the cache's blocks, or the reference that holds all scores at once."""
    if config.use_flash_attention_2:
        return ops.paged_attention
    return ops.reference.paged_attention


def technique(config: Qwen3NextConfig) -> TechniqueFact:
    layers = config.layer_types.count(ATTENTION)
    reason = f"prefill of {layers} of {config.num_hidden_layers} layers"
    on = config.use_flash_attention_2
    return TechniqueFact(
        "FlashAttention 2 (tiled online softmax)",
        "attention",
        "active" if on and layers else "dormant" if layers else "not applicable",
        exact=True,
        reason=reason if on else "use_flash_attention_2 is off",
    )
