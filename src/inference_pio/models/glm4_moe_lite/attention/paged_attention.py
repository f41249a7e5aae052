"""Decode: queries meet the latents in the cache's blocks where they lie (PagedAttention, Kwon et al. 2023)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from inference_pio import ops
from inference_pio.cache.specs import LatentCache
from inference_pio.models.glm4_moe_lite.config import Glm4MoeLiteConfig
from inference_pio.plugin.facts import TechniqueFact

# Queries [T, N, H], up-projections, cache, sequences, scale -> [T, N, V].
Attend = Callable[[Tensor, ops.UpProjections, LatentCache, ops.Sequences, float], Tensor]


def decode_attention(config: Glm4MoeLiteConfig) -> Attend:
    """Attention that reads blocks in place, or the reference that gathers each sequence's blocks first."""
    attend = ops.paged_attention if config.use_paged_attention else ops.reference.paged_attention

    def absorbed(
        q_TNH: Tensor, up: ops.UpProjections, cache: LatentCache, sequences: ops.Sequences, scale: float
    ) -> Tensor:
        return ops.absorbed_attention(q_TNH, up, cache.rows, sequences, scale, attend)

    return absorbed


def technique(config: Glm4MoeLiteConfig) -> TechniqueFact:
    return TechniqueFact(
        "paged attention",
        "attention",
        "active" if config.use_paged_attention else "dormant",
        exact=True,
        reason="decode reads blocks of latents in place"
        if config.use_paged_attention
        else "use_paged_attention is off",
    )
