"""Biases that are zero throughout are dropped: one addition less per linear map, the same result.

A glm4_moe_lite has them where `attention_bias` says so, on the projections down to latents and on the output;
GLM-4.7-Flash has none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from inference_pio.layers import Linear
from inference_pio.models.glm4_moe_lite.config import Glm4MoeLiteConfig
from inference_pio.plugin.optimization import OptimizationInterface


class BiasRemoval(OptimizationInterface):
    """Exact. Acts only where every element of a bias is zero."""

    def apply(self, model: nn.Module, config: Glm4MoeLiteConfig) -> nn.Module:
        if config.use_bias_removal_optimization:
            for linear in _biased(model):
                if linear.bias is not None and not linear.bias.any():
                    linear.bias = None
        return model

    def get_report(self, model: nn.Module) -> dict[str, Any]:
        kept = len(list(_biased(model)))
        return {
            "name": "bias removal",
            "category": "hardware",
            "status": "dormant" if kept else "active",
            "exact": True,
            "reason": f"{kept} biases of attention are kept: they are not zero, or removal is off"
            if kept
            else "no linear map adds a bias",
        }


def _biased(model: nn.Module) -> Iterator[Linear]:
    for module in model.modules():
        if isinstance(module, Linear) and module.bias is not None:
            yield module
