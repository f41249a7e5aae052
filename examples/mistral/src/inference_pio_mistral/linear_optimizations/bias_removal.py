"""Biases that are zero throughout are dropped: one addition less per linear map, the same result.

Checkpoints converted between frameworks often carry such biases.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from inference_pio.layers import Linear
from inference_pio.plugin.optimization import OptimizationInterface
from inference_pio_mistral.config import MistralConfig


class BiasRemoval(OptimizationInterface):
    """Exact. Acts only where every element of a bias is zero."""

    def apply(self, model: nn.Module, config: MistralConfig) -> nn.Module:
        if config.use_bias_removal_optimization:
            for module in model.modules():
                if isinstance(module, Linear) and module.bias is not None and not module.bias.any():
                    module.bias = None
        return model

    def get_report(self, model: nn.Module) -> dict[str, Any]:
        biases = sum(module.bias is not None for module in model.modules() if isinstance(module, Linear))
        return {
            "name": "bias removal",
            "category": "hardware",
            "status": "dormant" if biases else "active",
            "exact": True,
            "reason": f"{biases} biases are kept: they are not zero or removal is off"
            if biases
            else "no linear map adds a bias",
        }
