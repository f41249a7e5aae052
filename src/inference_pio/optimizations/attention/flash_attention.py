"""Prefill in tiles with an online softmax (FlashAttention 2, Dao 2023)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from inference_pio import ops
from inference_pio.optimizations.attention.attending import attending, set_attention
from inference_pio.optimizations.technique import Situation, Standing, Technique, active


class FlashAttention(Technique):
    """Scores of a prompt are never all in memory at once: tiles of queries and keys, one softmax that goes on."""

    name = "flash_attention"
    title = "FlashAttention 2"
    family = "FlashAttention 2 (tiled online softmax)"
    category = "attention"
    exact = True
    flags = ("use_flash_attention_2",)
    shows_on = "prefill"
    by_flag = True

    def standing(self, at: Situation) -> Standing:  # noqa: ARG002
        return active("prefill goes over tiles of queries and keys")

    def apply(self, model: nn.Module, config: Any) -> nn.Module:  # noqa: ARG002
        for module, how in attending(model):
            set_attention(module, replace(how, prefill=ops.paged_attention))
        return model

    def get_report(self, model: nn.Module) -> dict[str, Any]:
        layers = [how for _, how in attending(model) if how.prefill is ops.paged_attention]
        return {**self.facts(), "layers": len(layers)}
