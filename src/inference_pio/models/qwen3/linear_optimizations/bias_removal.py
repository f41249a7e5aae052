"""Biases that are zero throughout are dropped: one addition less per linear map, the same result.

Published Qwen3 models have no biases at all: where Qwen2.5 adds one to queries and keys, Qwen3 normalises them. The
architecture still knows `attention_bias`, for q, k, v and o together; this acts on checkpoints that have it and whose
biases are zero, as those have that were converted from a model without.

A bias that is not zero cannot be folded into anything behind it: those of q and k stand in front of a norm.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from inference_pio.layers import Linear
from inference_pio.models.qwen3.config import Qwen3Config
from inference_pio.plugin.optimization import OptimizationInterface


class BiasRemoval(OptimizationInterface):
    """Exact. Acts only where every element of a bias is zero."""

    def apply(self, model: nn.Module, config: Qwen3Config) -> nn.Module:
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
            else "no linear map adds a bias",
        }


def _biased(model: nn.Module) -> list[Linear]:
    return [module for module in model.modules() if isinstance(module, Linear) and module.bias is not None]
