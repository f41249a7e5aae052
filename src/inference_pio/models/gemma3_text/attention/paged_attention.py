"""Decode: one new token per sequence attends to its cache blocks where they lie (PagedAttention, Kwon et al. 2023)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from inference_pio import ops
from inference_pio.models.gemma3_text.config import Gemma3TextConfig
from inference_pio.plugin.facts import TechniqueFact

Attend = Callable[..., Tensor]


def decode_attention(config: Gemma3TextConfig) -> Attend:
    """Attention that reads blocks in place, or the reference that gathers each sequence's blocks first."""
    return ops.paged_attention if config.use_paged_attention else ops.reference.paged_attention


def technique(config: Gemma3TextConfig) -> TechniqueFact:
    return TechniqueFact(
        "paged attention",
        "attention",
        "active" if config.use_paged_attention else "dormant",
        exact=True,
        reason="decode reads blocks in place" if config.use_paged_attention else "use_paged_attention is off",
    )
