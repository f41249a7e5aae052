"""Biases that are zero throughout are dropped: one addition less per linear map, the same result.

Published Qwen3-VL models have no biases in the text's layers. The architecture still knows `attention_bias`, for q, k,
v and o together; this acts on checkpoints that have it and whose biases are zero. The vision tower's maps all have
biases, and keep them.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from inference_pio.layers import Linear
from inference_pio.models.qwen3_vl.config import Qwen3VLConfig
from inference_pio.plugin.optimization import OptimizationInterface


class BiasRemoval(OptimizationInterface):
    """Exact. Acts only where every element of a bias is zero."""

    def apply(self, model: nn.Module, config: Qwen3VLConfig) -> nn.Module:
        if config.use_bias_removal_optimization:
            for linear in _biased(model):
                if linear.bias is not None and not linear.bias.any():
                    linear.bias = None
        return model

    def get_report(self, model: nn.Module) -> dict[str, Any]:
        kept = len(_biased(model))
        return {
            "name": "bias removal",
            "category": "hardware",
            "status": "dormant" if kept else "active",
            "exact": True,
            "reason": f"{kept} biases of attention_bias are kept: they are not zero, or removal is off"
            if kept
            else "no linear map of the text adds a bias",
        }


def _biased(model: nn.Module) -> list[Linear]:
    return [module for module in model.modules() if isinstance(module, Linear) and module.bias is not None]
