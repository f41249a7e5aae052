"""Biases: the architecture has none, and a checkpoint that brings one is refused by its configuration or its names.

What this says of a loaded model is counted, not assumed.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from inference_pio.layers import Linear
from inference_pio.models.qwen3_moe.config import Qwen3MoeConfig
from inference_pio.plugin.optimization import OptimizationInterface


class BiasRemoval(OptimizationInterface):
    """Exact: there is nothing to remove."""

    def apply(self, model: nn.Module, config: Qwen3MoeConfig) -> nn.Module:  # noqa: ARG002
        return model

    def get_report(self, model: nn.Module) -> dict[str, Any]:
        linear = [module for module in model.modules() if isinstance(module, Linear)]
        biased = sum(module.bias is not None for module in linear)
        return {
            "name": "bias removal",
            "category": "hardware",
            "status": "dormant" if biased else "not applicable",
            "exact": True,
            "reason": f"{biased} of {len(linear)} linear maps add a bias, by design none does",
        }
