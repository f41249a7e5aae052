"""Decode of the attention layers, over cache blocks where they lie (PagedAttention, Kwon et al. 2023).

DeltaNet layers have no blocks: their state has one size and lies in a slot per sequence.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from inference_pio import ops
from inference_pio.models.qwen3_next.config import ATTENTION, Qwen3NextConfig
from inference_pio.plugin.facts import TechniqueFact


def decode_attention(config: Qwen3NextConfig) -> Callable[..., Tensor]:
    """Reads blocks in place, or gathers a sequence's blocks first."""
    if config.use_paged_attention:
        return ops.paged_attention
    return ops.reference.paged_attention


def technique(config: Qwen3NextConfig) -> TechniqueFact:
    layers = config.layer_types.count(ATTENTION)
    on = config.use_paged_attention
    return TechniqueFact(
        "paged attention",
        "attention",
        "active" if on and layers else "dormant" if layers else "not applicable",
        exact=True,
        reason=f"decoding in {layers} of {config.num_hidden_layers} layers"
        if on
        else "use_paged_attention is off",
    )
