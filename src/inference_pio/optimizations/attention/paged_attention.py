"""Decode reads cache blocks where they lie (PagedAttention, Kwon et al. 2023)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from inference_pio import ops
from inference_pio.optimizations.attention.attending import attending, set_attention
from inference_pio.optimizations.technique import Situation, Standing, Technique, active


class PagedAttentionInPlace(Technique):
    """No sequence's keys and values are gathered before they are read."""

    name = "paged_attention"
    title = "paged attention"
    family = "paged attention"
    category = "attention"
    exact = True
    flags = ("use_paged_attention",)
    shows_on = "decode"
    by_flag = True

    def standing(self, at: Situation) -> Standing:  # noqa: ARG002
        return active("decode reads blocks in place")

    def apply(self, model: nn.Module, config: Any) -> nn.Module:  # noqa: ARG002
        for module, how in attending(model):
            set_attention(module, replace(how, decode=ops.paged_attention))
        return model

    def get_report(self, model: nn.Module) -> dict[str, Any]:
        layers = [how for _, how in attending(model) if how.decode is ops.paged_attention]
        return {**self.facts(), "layers": len(layers)}
